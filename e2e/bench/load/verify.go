package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// algorithms are those that are measured.
var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA}

// Verify checks the tokens that were kept, each with the key that its header
// names, and that no two have the same jti: none was handed out twice. With a
// signing input what was kept are signatures of it. It returns how many held.
func Verify(kept []string, input string, jwks []byte) (int, error) {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &set); err != nil {
		return 0, fmt.Errorf("key set: %w", err)
	}
	if len(kept) == 0 {
		return 0, errors.New("no token was kept to be verified")
	}
	seen := map[string]bool{}
	for _, raw := range kept {
		if input != "" {
			raw = input + "." + raw
		}
		id, err := verify(raw, set)
		if err != nil {
			return 0, err
		}
		if input == "" && id != "" && seen[id] {
			return 0, fmt.Errorf("jti %q twice", id)
		}
		seen[id] = true
	}
	return len(kept), nil
}

func verify(raw string, set jose.JSONWebKeySet) (jti string, err error) {
	tok, err := jose.ParseSigned(raw, algorithms)
	if err != nil {
		return "", fmt.Errorf("a token that does not parse: %w", err)
	}
	header := tok.Signatures[0].Header
	keys := set.Key(header.KeyID)
	at := slices.IndexFunc(keys, func(k jose.JSONWebKey) bool { return k.Algorithm == header.Algorithm })
	if at < 0 {
		return "", fmt.Errorf("no %s key %q in the set", header.Algorithm, header.KeyID)
	}
	payload, err := tok.Verify(keys[at])
	if err != nil {
		return "", fmt.Errorf("a token that does not verify: %w", err)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	err = json.Unmarshal(payload, &claims)
	return claims.ID, err
}
