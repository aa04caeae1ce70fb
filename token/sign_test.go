package token

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

func TestSignEveryAlgorithm(t *testing.T) {
	claims := claimsOf(t, nil)
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			key := newKey(t, alg)
			raw := build(t, Header{Alg: alg, Kid: "k1", Typ: "JWT"}, claims, key)

			keys, err := ParseSet(setOf(t, jwkOf(t, key.Public(), "k1", alg)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Verify(keys, raw, Options{Now: now, Issuer: "https://issuer.example", Audience: "api://orders", Typ: "jwt"})
			if err != nil {
				t.Fatal(err)
			}
			if got.Header != (Header{Alg: alg, Kid: "k1", Typ: "JWT"}) || string(got.Claims.Raw) != string(claims) {
				t.Errorf("read back %+v %s", got.Header, got.Claims.Raw)
			}
			verifyByHand(t, alg, raw, key.Public())

			// golang-jwt with its own methods is a reader that shares nothing with ours.
			_, err = jwt.NewParser(jwt.WithoutClaimsValidation()).Parse(raw, func(*jwt.Token) (any, error) { return key.Public(), nil })
			if err != nil {
				t.Errorf("golang-jwt refuses the token: %v", err)
			}
		})
	}
}

// verifyByHand checks a signature with nothing but the standard library.
func verifyByHand(t *testing.T, alg, raw string, pub crypto.PublicKey) {
	t.Helper()
	dot := strings.LastIndex(raw, ".")
	sig, err := b64.DecodeString(raw[dot+1:])
	if err != nil {
		t.Fatal(err)
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512, "DSA": 0}[alg[2:]]
	var sum []byte
	if hash != 0 {
		h := hash.New()
		h.Write([]byte(raw[:dot]))
		sum = h.Sum(nil)
	}
	ok := false
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if alg[0] == 'R' {
			ok = rsa.VerifyPKCS1v15(key, hash, sum, sig) == nil
		} else {
			ok = rsa.VerifyPSS(key, hash, sum, sig, &rsa.PSSOptions{SaltLength: hash.Size()}) == nil
		}
	case *ecdsa.PublicKey:
		size := map[string]int{"ES256": 32, "ES384": 48, "ES512": 66}[alg]
		if len(sig) != 2*size {
			t.Fatalf("signature of %d octets, want %d", len(sig), 2*size)
		}
		ok = ecdsa.Verify(key, sum, new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:]))
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, []byte(raw[:dot]), sig)
	}
	if !ok {
		t.Errorf("%s: the standard library refuses the signature", alg)
	}
}

func TestGolangJWTSignsThroughOurMethods(t *testing.T) {
	for _, alg := range Algorithms() {
		key := newKey(t, alg)
		method, err := Method(alg)
		if err != nil {
			t.Fatal(err)
		}
		tok := jwt.NewWithClaims(method, jwt.MapClaims{"exp": at(60e9)})
		tok.Header["kid"] = "k1"
		raw, err := tok.SignedString(key)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		if _, err := Verify([]VerificationKey{{"k1", alg, key.Public()}}, raw, Options{Now: now}); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
		if registered := jwt.GetSigningMethod(alg); registered == method {
			t.Errorf("%s: our method is registered in golang-jwt's table", alg)
		}
	}
}

func TestDeterministic(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		key := newKey(t, alg)
		h := Header{Alg: alg, Kid: "k1"}
		if a, b := build(t, h, []byte(`{"a":1}`), key), build(t, h, []byte(`{"a":1}`), key); a != b {
			t.Errorf("%s: two signatures of the same bytes differ", alg)
		}
	}
}

func TestClaimsPassByteByByte(t *testing.T) {
	claims := `{"exp":1.0e3, "big":12345678901234567890123,"one":1.0,"html":"<&>  ","nested":{"z":1,"a":[ 2 ]}}`
	raw := build(t, Header{Alg: "EdDSA", Kid: "k1"}, []byte(claims), newKey(t, "EdDSA"))
	payload, err := b64.DecodeString(strings.Split(raw, ".")[1])
	if err != nil || string(payload) != claims {
		t.Errorf("payload %s, want %s", payload, claims)
	}
}

func TestBuildRefuses(t *testing.T) {
	good := Header{Alg: "ES256", Kid: "k1"}
	for name, tc := range map[string]struct {
		header Header
		claims string
		key    crypto.Signer
		want   string
	}{
		"none":            {Header{Alg: "none", Kid: "k"}, `{}`, newKey(t, "ES256"), "algorithm refused"},
		"shared secret":   {Header{Alg: "HS256", Kid: "k"}, `{}`, newKey(t, "ES256"), "algorithm refused"},
		"case twin":       {Header{Alg: "es256", Kid: "k"}, `{}`, newKey(t, "ES256"), "algorithm refused"},
		"no kid":          {Header{Alg: "ES256"}, `{}`, newKey(t, "ES256"), "needs a kid"},
		"other curve":     {good, `{}`, newKey(t, "ES384"), "another curve"},
		"other kind":      {good, `{}`, newKey(t, "RS256"), "an RSA key"},
		"RSA with EC":     {Header{Alg: "PS256", Kid: "k"}, `{}`, newKey(t, "ES256"), "another curve"},
		"Ed with RSA":     {Header{Alg: "RS256", Kid: "k"}, `{}`, newKey(t, "EdDSA"), "Ed25519 key"},
		"claims an array": {good, `[]`, newKey(t, "ES256"), "claims"},
		"claims null":     {good, `null`, newKey(t, "ES256"), "not an object"},
		"claims twice":    {good, `{"a":1,"a":2}`, newKey(t, "ES256"), "appears twice"},
		"claims and more": {good, `{"a":1}{`, newKey(t, "ES256"), "data after"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Build(tc.header, []byte(tc.claims), tc.key)
			wantError(t, err, tc.want)
		})
	}
	_, err := Method("HS512")
	if !errors.Is(err, ErrAlgorithm) {
		t.Errorf("Method(HS512) = %v", err)
	}
	m, _ := Method("ES256")
	if _, err := m.Sign("x", "no key"); !errors.Is(err, ErrKey) {
		t.Errorf("Sign with a string = %v", err)
	}
}

// liar is a key that signs what the test says.
type liar struct {
	opaque
	sig []byte
	err error
}

func (l liar) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return l.sig, l.err }

func TestBadSignatureOfTheKey(t *testing.T) {
	der := func(r, s *big.Int) []byte {
		out, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	one, wide := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	key := newKey(t, "ES256").(opaque)
	for name, l := range map[string]liar{
		"error":    {key, nil, errors.New("store sealed")},
		"no DER":   {key, []byte("x"), nil},
		"zero":     {key, der(big.NewInt(0), one), nil},
		"negative": {key, der(one, big.NewInt(-1)), nil},
		"too wide": {key, der(wide, one), nil},
		"trailing": {key, append(der(one, one), 0), nil},
	} {
		if raw, err := Build(Header{Alg: "ES256", Kid: "k"}, []byte(`{}`), l); err == nil {
			t.Errorf("%s: built %s", name, raw)
		}
	}
}

func TestFixedWidthPads(t *testing.T) {
	der, err := asn1.Marshal(struct{ R, S *big.Int }{big.NewInt(1), big.NewInt(2)})
	if err != nil {
		t.Fatal(err)
	}
	out, err := fixedWidth(der, 66)
	if err != nil || len(out) != 132 || out[65] != 1 || out[131] != 2 {
		t.Errorf("fixedWidth = %v, %v", out, err)
	}
}

// What a key that is not Go's own might return.
func TestFixedWidthRefuses(t *testing.T) {
	der := func(r, s *big.Int) []byte {
		doc, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	one, wide := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 256)
	whole := der(one, one)
	for name, sig := range map[string][]byte{
		"nothing":      nil,
		"cut":          whole[:len(whole)-1],
		"more behind":  append(bytes.Clone(whole), 0),
		"zero r":       der(new(big.Int), one),
		"zero s":       der(one, new(big.Int)),
		"negative":     der(big.NewInt(-1), one),
		"too wide":     der(one, wide),
		"a third":      {0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1},
		"long form":    {0x30, 7, 2, 2, 0, 1, 2, 1, 1}, // not DER: a leading zero too many
		"no sequence":  {0x31, 6, 2, 1, 1, 2, 1, 1},
		"no integer":   {0x30, 6, 4, 1, 1, 2, 1, 1},
		"empty number": {0x30, 5, 2, 0, 2, 1, 1},
	} {
		if out, err := fixedWidth(sig, 32); err == nil {
			t.Errorf("%s: %x", name, out)
		}
	}
}

// AppendSigned leaves what is before it alone, also where the key fails.
func TestAppendSigned(t *testing.T) {
	key := newKey(t, "ES256")
	s, err := NewSigner("ES256", "k1", key)
	if err != nil {
		t.Fatal(err)
	}
	dst := append(make([]byte, 0, 4096), "before"...)
	for _, typ := range []string{"JWT", "at+jwt", "JWT"} {
		out, err := s.AppendSigned(dst, typ, []byte(`{"sub":"u"}`))
		if err != nil || !bytes.HasPrefix(out, []byte("before")) {
			t.Fatalf("AppendSigned = %q, %v", out, err)
		}
		raw := string(out[len("before"):])
		h, err := Parse(raw)
		if err != nil || h.Header.Typ != typ {
			t.Errorf("%s: %+v, %v", raw, h, err)
		}
		verifyByHand(t, "ES256", raw, key.Public())
		if again, err := s.Sign(typ, []byte(`{"sub":"u"}`)); err != nil || again != raw {
			t.Errorf("Sign = %s, %v, want the same: it is deterministic", again, err)
		}
	}
}

func TestSignerRedactsItself(t *testing.T) {
	key := newKey(t, "ES256").(opaque).key.(*ecdsa.PrivateKey)
	s, err := NewSigner("ES256", "k1", key)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "signer", s)
	scalar, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	d := new(big.Int).SetBytes(scalar)
	for _, out := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %d %x", s, s, s, s, s, s), string(doc), log.String()} {
		if !strings.Contains(out, redacted) || strings.Contains(out, d.String()) || strings.Contains(out, fmt.Sprintf("%x", d)) {
			t.Errorf("a signer prints as %s", out)
		}
	}
}

func BenchmarkSignES256(b *testing.B) {
	s, err := NewSigner("ES256", "k1", newKey(b, "ES256"))
	if err != nil {
		b.Fatal(err)
	}
	claims := json.RawMessage(`{"iss":"https://issuer.example","sub":"user-1","aud":["api://orders"],"exp":1}`)
	for b.Loop() {
		if _, err := s.Sign("JWT", claims); err != nil {
			b.Fatal(err)
		}
	}
}
