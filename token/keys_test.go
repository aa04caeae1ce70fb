package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

// opaque hides a key's type, as the keys of a custody do.
type opaque struct{ key crypto.Signer }

func (o opaque) Public() crypto.PublicKey { return o.key.Public() }
func (o opaque) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return o.key.Sign(r, digest, opts)
}

// RSA keys are slow to make: one serves all tests.
var rsaOnce = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newKey(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsaOnce()
	}
	if err != nil {
		t.Fatal(err)
	}
	return opaque{key}
}

var b64 = base64.RawURLEncoding

// jwkOf writes a public key as a JWK, apart from the code under test.
func jwkOf(t testing.TB, pub crypto.PublicKey, kid, alg string) map[string]any {
	t.Helper()
	jwk := map[string]any{"kid": kid, "use": "sig", "alg": alg}
	switch k := pub.(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", b64.EncodeToString(k.N.Bytes()), b64.EncodeToString(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(point) / 2
		jwk["kty"], jwk["crv"] = "EC", k.Params().Name
		jwk["x"], jwk["y"] = b64.EncodeToString(point[1:1+half]), b64.EncodeToString(point[1+half:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", b64.EncodeToString(k)
	}
	return jwk
}

func setOf(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	doc, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func at(d time.Duration) int64 { return now.Add(d).Unix() }

func claimsOf(t testing.TB, more map[string]any) []byte {
	t.Helper()
	all := map[string]any{
		"iss": "https://issuer.example", "sub": "user-1", "aud": []string{"api://orders"},
		"iat": at(-10 * time.Second), "nbf": at(-10 * time.Second), "exp": at(time.Minute), "jti": "one",
	}
	for name, v := range more {
		if v == nil {
			delete(all, name)
			continue
		}
		all[name] = v
	}
	doc, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func build(t testing.TB, h Header, claims []byte, key crypto.Signer) string {
	t.Helper()
	raw, err := Build(h, claims, key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want one with %q", err, text)
	}
}
