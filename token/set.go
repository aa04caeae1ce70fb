package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/keyturn/keyturn/internal/strictjson"
)

// MaxSetBytes is the longest key set that ParseSet reads.
const MaxSetBytes = 4 << 20

// ParseSet reads a JWK set (RFC 7517 §5). Keys that are not for verifying
// with an algorithm of this package (another kty, crv, use or alg) are left
// out, as §5 asks. Everything else that breaks RFC 7517 or 7518 refuses the whole set,
// since it says that the publisher is broken: private members, kids that
// appear twice, members of a wrong width, points off their curve, Ed25519
// points that no private key has, an RSA key below 2048 bits or without alg. All faults are joined; each wraps ErrSet.
func ParseSet(doc []byte) ([]VerificationKey, error) {
	if len(doc) > MaxSetBytes {
		return nil, fmt.Errorf("%w: %d bytes; at most %d are read", ErrSet, len(doc), MaxSetBytes)
	}
	var set struct {
		Keys *[]map[string]json.RawMessage `json:"keys"`
	}
	if err := strictjson.UnmarshalOpen(doc, &set); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSet, err)
	}
	if set.Keys == nil {
		return nil, fmt.Errorf("%w: no member keys (RFC 7517 §5.1)", ErrSet)
	}
	var out []VerificationKey
	var errs []error
	seen := map[string]bool{}
	for i, members := range *set.Keys {
		k, err := parseKey(members)
		switch {
		case errors.Is(err, errNotForUs):
		case err != nil:
			errs = append(errs, fmt.Errorf("%w: key %d (kid %q): %w", ErrSet, i+1, shorten(k.Kid), err))
		default:
			out = append(out, k)
		}
		if k.Kid != "" && seen[k.Kid] {
			errs = append(errs, fmt.Errorf("%w: kid %q appears twice (RFC 7517 §4.5)", ErrSet, shorten(k.Kid)))
		}
		seen[k.Kid] = true
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// errNotForUs marks a key that is well-formed as far as it was understood, and
// not for verifying with an algorithm of this package.
var errNotForUs = errors.New("a key for something else")

// parseKey reads one JWK. The kid is returned as far as there is one.
func parseKey(members map[string]json.RawMessage) (VerificationKey, error) {
	var k VerificationKey
	if members == nil {
		return k, errors.New("null is not a key")
	}
	var kty, use, crv string
	if err := errors.Join(
		stringMember(members, "kid", &k.Kid),
		stringMember(members, "kty", &kty),
		stringMember(members, "use", &use),
		stringMember(members, "alg", &k.Alg),
		stringMember(members, "crv", &crv),
	); err != nil {
		return k, err
	}
	for _, name := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := members[name]; ok {
			return k, fmt.Errorf("holds the private member %q: whoever published this gave the key away; revoke it (RFC 7517 §9.2)", name)
		}
	}
	verifies, err := opsVerify(members)
	switch {
	case err != nil:
		return k, err
	case kty == "":
		return k, errors.New("has no kty (RFC 7517 §4.1)")
	case use != "" && use != "sig", !verifies:
		return k, errNotForUs
	}
	if k.Alg, err = pinned(kty, crv, k.Alg); err != nil {
		return k, err
	}
	if k.Kid == "" {
		return k, errors.New("has no kid: no token can name it")
	}
	if k.Key, err = publicKey(kty, crv, members); err != nil {
		return k, err
	}
	return k, fits(k.Alg, k.Key)
}

// opsVerify reports whether key_ops allows verifying (RFC 7517 §4.3).
func opsVerify(members map[string]json.RawMessage) (bool, error) {
	raw, ok := members["key_ops"]
	if !ok {
		return true, nil
	}
	var ops []string
	if err := json.Unmarshal(raw, &ops); err != nil || ops == nil {
		return false, errors.New("member key_ops is not an array of strings")
	}
	return slices.Contains(ops, "verify"), nil
}

// pinned is the one algorithm that the key is for. The curve of an EC or
// Ed25519 key tells it; an RSA key has to say.
func pinned(kty, crv, alg string) (string, error) {
	byCurve := map[string]string{"EC P-256": "ES256", "EC P-384": "ES384", "EC P-521": "ES512", "OKP Ed25519": "EdDSA"}[kty+" "+crv]
	known := slices.Contains(Algorithms(), alg)
	switch {
	case kty == "RSA" && alg == "":
		return "", errors.New("is an RSA key without alg: six algorithms could use it, and one must be pinned (RFC 8725 §3.1)")
	case kty == "RSA" && known, byCurve != "" && known:
		return alg, nil // whether it goes with the key is for fits to say
	case byCurve != "" && alg == "":
		return byCurve, nil
	}
	return "", errNotForUs
}

func publicKey(kty, crv string, members map[string]json.RawMessage) (crypto.PublicKey, error) {
	switch kty {
	case "RSA":
		return rsaKey(members)
	case "EC":
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[crv]
		size := (curve.Params().BitSize + 7) / 8
		x, errX := octets(members, "x", size)
		y, errY := octets(members, "y", size)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
		if err != nil {
			return nil, fmt.Errorf("x and y are no point on %s", crv)
		}
		return key, nil
	}
	x, err := octets(members, "x", ed25519.PublicKeySize)
	if err != nil {
		return nil, err
	}
	return ed25519.PublicKey(x), soundPoint(x)
}

func rsaKey(members map[string]json.RawMessage) (*rsa.PublicKey, error) {
	n, errN := octets(members, "n", 0)
	e, errE := octets(members, "e", 0)
	if err := errors.Join(errN, errE); err != nil {
		return nil, err
	}
	exponent := new(big.Int).SetBytes(e)
	if len(e) > 4 || exponent.Int64() < 3 || exponent.Int64() > 1<<31-1 || exponent.Bit(0) == 0 {
		return nil, errors.New("member e is not an odd number from 3 to 2^31-1")
	}
	modulus := new(big.Int).SetBytes(n)
	if modulus.Bit(0) == 0 {
		return nil, errors.New("member n is even: no modulus is")
	}
	return &rsa.PublicKey{N: modulus, E: int(exponent.Int64())}, nil
}

// octets reads a base64url member. A size demands exactly that many octets
// (RFC 7518 §6.2.1.2, RFC 8037 §2); none means an integer in the fewest
// (RFC 7518 §6.3.1).
func octets(members map[string]json.RawMessage, name string, size int) ([]byte, error) {
	var text string
	if err := stringMember(members, name, &text); err != nil {
		return nil, err
	}
	out, err := decode(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("member %s %w", name, err)
	case size > 0 && len(out) != size:
		return nil, fmt.Errorf("member %s has %d octets; it needs exactly %d", name, len(out), size)
	case size == 0 && out[0] == 0:
		return nil, fmt.Errorf("member %s begins with a zero octet (RFC 7518 §6.3.1)", name)
	}
	return out, nil
}
