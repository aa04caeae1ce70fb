package clienttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// skew is how far iat and nbf lie before the time of signing, as the daemon's
// clock_skew.
const skew = 10 * time.Second

// key is a throw-away key.
type key struct {
	jwk    keyring.JWK
	signer *token.Signer
}

func newKey(alg keyring.Algorithm) (key, error) {
	private, err := generate(alg)
	if err != nil {
		return key{}, err
	}
	jwk, err := keyring.NewJWK(private.Public(), alg)
	if err != nil {
		return key{}, err
	}
	signer, err := token.NewSigner(string(alg), jwk.Kid, private)
	if err != nil {
		return key{}, err
	}
	return key{jwk, signer}, nil
}

func generate(alg keyring.Algorithm) (crypto.Signer, error) {
	switch {
	case alg.IsRSA():
		return rsa.GenerateKey(rand.Reader, 2048)
	case alg == keyring.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		if curve.Params().Name == alg.Curve() {
			return ecdsa.GenerateKey(curve, rand.Reader)
		}
	}
	return nil, fmt.Errorf("algorithm %q: use one of %v", alg, keyring.Algorithms())
}

// answer judges a request and signs it.
func (s *Server) answer(req api.SignRequest) (*api.SignResponse, *api.Problem) {
	s.mu.Lock()
	s.requests = append(s.requests, req)
	failure, shift, k := s.failure, s.shift, s.keys[len(s.keys)-1]
	s.mu.Unlock()
	if failure != "" {
		return nil, api.NewProblem(failure, "the test wants it so")
	}
	want, prob := s.judge(&req)
	if prob != nil {
		return nil, prob
	}
	now := time.Now().Add(shift)
	expires := now.Add(time.Duration(want.ttl) * time.Second)
	claims := map[string]any{
		"iss": s.issuer, "sub": want.subject, "aud": want.audience, "jti": rand.Text(),
		"iat": now.Add(-skew).Unix(), "nbf": now.Add(-skew).Unix(), "exp": expires.Unix(),
	}
	for name, value := range want.claims {
		claims[name] = value
	}
	doc, err := json.Marshal(claims)
	if err != nil {
		return nil, invalid("the claims cannot be written as JSON: %v", err)
	}
	raw, err := k.signer.Sign(want.typ, doc)
	if err != nil {
		return nil, api.NewProblem(api.Unavailable, err.Error())
	}
	return &api.SignResponse{Token: raw, Kid: k.jwk.Kid, ExpiresAt: time.Unix(expires.Unix(), 0).UTC(), ExpiresIn: want.ttl}, nil
}

// set is the key set as it is published.
func (s *Server) set() keyring.JWKSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := keyring.JWKSet{Keys: []keyring.JWK{}}
	for _, k := range s.keys {
		out.Keys = append(out.Keys, k.jwk)
	}
	slices.SortFunc(out.Keys, func(a, b keyring.JWK) int { return strings.Compare(a.Kid, b.Kid) })
	return out
}
