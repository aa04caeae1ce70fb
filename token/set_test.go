package token

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"math/big"
	"strings"
	"testing"
)

func TestParseSetRefuses(t *testing.T) {
	ec := func(changes ...any) map[string]any {
		return change(jwkOf(t, newKey(t, "ES256").Public(), "k1", "ES256"), changes)
	}
	rs := func(changes ...any) map[string]any {
		return change(jwkOf(t, newKey(t, "RS256").Public(), "k1", "RS256"), changes)
	}
	ed := func(changes ...any) map[string]any {
		return change(jwkOf(t, newKey(t, "EdDSA").Public(), "k1", "EdDSA"), changes)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	huge := new(big.Int).Lsh(big.NewInt(1), 20000)
	huge.SetBit(huge, 0, 1)
	n := rs()["n"].(string)
	nBytes, err := b64.DecodeString(n)
	if err != nil {
		t.Fatal(err)
	}
	x := ec()["x"].(string)
	for name, tc := range map[string]struct {
		keys []map[string]any
		want string
	}{
		"private EC":       {[]map[string]any{ec("d", "AA")}, `private member "d"`},
		"private RSA":      {[]map[string]any{rs("p", "AA")}, `private member "p"`},
		"symmetric":        {[]map[string]any{{"kty": "oct", "kid": "s", "k": "AA"}}, `private member "k"`},
		"private, not sig": {[]map[string]any{ec("use", "enc", "d", "AA")}, "private member"},
		"kid twice":        {[]map[string]any{ec(), ed()}, `kid "k1" appears twice`},
		"no kid":           {[]map[string]any{ec("kid", nil)}, "has no kid"},
		"kid a number":     {[]map[string]any{ec("kid", 1)}, "kid is not a string"},
		"no kty":           {[]map[string]any{ec("kty", nil)}, "has no kty"},
		"x short":          {[]map[string]any{ec("x", b64.EncodeToString(make([]byte, 31)))}, "exactly 32"},
		"x with a zero":    {[]map[string]any{ec("x", "AA"+x)}, "member x"},
		"y missing":        {[]map[string]any{ec("y", nil)}, "member y is empty"},
		"x line break":     {[]map[string]any{ec("x", x[:9]+"\n"+x[9:])}, "line break"},
		"x padded":         {[]map[string]any{ec("x", x+"=")}, "not base64url"},
		"off the curve":    {[]map[string]any{ec("x", b64.EncodeToString(make([]byte, 32)))}, "no point on P-256"},
		"other alg":        {[]map[string]any{ec("alg", "ES384")}, "another curve"},
		"RSA as EC alg":    {[]map[string]any{rs("alg", "ES256")}, "an RSA key"},
		"EC as RSA alg":    {[]map[string]any{ec("alg", "RS256")}, "another curve"},
		"RSA without alg":  {[]map[string]any{rs("alg", nil)}, "RSA key without alg"},
		"RSA 1024":         {[]map[string]any{jwkOf(t, &small.PublicKey, "k1", "RS256")}, "modulus of 1024 bits"},
		"RSA 20000":        {[]map[string]any{rs("n", b64.EncodeToString(huge.Bytes()))}, "modulus of 20001 bits"},
		"n leading zero":   {[]map[string]any{rs("n", b64.EncodeToString(append([]byte{0}, nBytes...)))}, "zero octet"},
		"n even":           {[]map[string]any{rs("n", b64.EncodeToString(append(nBytes[:len(nBytes)-1:len(nBytes)-1], nBytes[len(nBytes)-1]&^1)))}, "even"},
		"n in hex":         {[]map[string]any{rs("n", "!!")}, "not base64url"},
		"e one":            {[]map[string]any{rs("e", "AQ")}, "member e"},
		"e even":           {[]map[string]any{rs("e", b64.EncodeToString([]byte{4}))}, "member e"},
		"e long":           {[]map[string]any{rs("e", b64.EncodeToString([]byte{1, 0, 0, 0, 1}))}, "member e"},
		"Ed short":         {[]map[string]any{ed("x", "AA")}, "exactly 32"},
		"key_ops":          {[]map[string]any{ec("key_ops", "verify")}, "key_ops"},
		"null key":         {[]map[string]any{nil}, "null is not a key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSet(setOf(t, tc.keys...))
			if !errors.Is(err, ErrSet) {
				t.Fatalf("ParseSet = %v, want ErrSet", err)
			}
			wantError(t, err, tc.want)
		})
	}
	for name, doc := range map[string]string{
		"not JSON":    `keys`,
		"no keys":     `{}`,
		"keys null":   `{"keys":null}`,
		"an array":    `[]`,
		"keys twice":  `{"keys":[],"keys":[]}`,
		"member twin": `{"keys":[{"kty":"EC","kty":"EC"}]}`,
		"trailing":    `{"keys":[]} {}`,
		"too long":    `{"keys":[]` + strings.Repeat(" ", MaxSetBytes) + `}`,
	} {
		if _, err := ParseSet([]byte(doc)); !errors.Is(err, ErrSet) {
			t.Errorf("%s: ParseSet = %v, want ErrSet", name, err)
		}
	}
}

func change(jwk map[string]any, changes []any) map[string]any {
	for i := 0; i < len(changes); i += 2 {
		name := changes[i].(string)
		if changes[i+1] == nil {
			delete(jwk, name)
			continue
		}
		jwk[name] = changes[i+1]
	}
	return jwk
}

func TestParseSetTakes(t *testing.T) {
	var keys []map[string]any
	for _, alg := range Algorithms() {
		keys = append(keys, jwkOf(t, newKey(t, alg).Public(), alg, alg))
	}
	curve := change(jwkOf(t, newKey(t, "ES384").Public(), "by curve", ""), []any{"alg", nil, "use", nil, "key_ops", []string{"verify"}, "x5t", "ignored"})
	// Keys for something else are left out (RFC 7517 §5).
	keys = append(keys, curve,
		map[string]any{"kty": "OKP", "crv": "X25519", "kid": "ecdh", "x": "AA"},
		map[string]any{"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"},
		change(jwkOf(t, newKey(t, "ES256").Public(), "enc", "ES256"), []any{"use", "enc"}),
		change(jwkOf(t, newKey(t, "ES256").Public(), "ops", "ES256"), []any{"key_ops", []string{"encrypt"}}),
		change(jwkOf(t, newKey(t, "RS256").Public(), "oaep", "RSA-OAEP"), nil),
	)
	got, err := ParseSet(setOf(t, keys...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 11 {
		t.Fatalf("%d keys, want the ten algorithms and one by its curve", len(got))
	}
	for i, alg := range Algorithms() {
		if got[i].Kid != alg || got[i].Alg != alg {
			t.Errorf("key %d is %q for %s, want %s", i, got[i].Kid, got[i].Alg, alg)
		}
	}
	if got[10].Alg != "ES384" {
		t.Errorf("a P-384 key without alg is for %q", got[10].Alg)
	}
}

func FuzzParseSet(f *testing.F) {
	f.Add(setOf(f, jwkOf(f, newKey(f, "ES256").Public(), "k1", "ES256"), jwkOf(f, newKey(f, "RS256").Public(), "k2", "RS256")))
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"k"}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		keys, err := ParseSet(doc)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, k := range keys {
			if seen[k.Kid] || k.Kid == "" || fits(k.Alg, k.Key) != nil {
				t.Errorf("key %+v of %q", k, doc)
			}
			seen[k.Kid] = true
		}
	})
}
