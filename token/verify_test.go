package token

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// compact signs a header and claims of any shape with the key.
func compact(t testing.TB, header, claims string) (string, []VerificationKey) {
	t.Helper()
	key := newKey(t, "ES256")
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(claims))
	method, err := Method("ES256")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := method.Sign(input, key)
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + b64.EncodeToString(sig), []VerificationKey{{"k1", "ES256", key.Public()}}
}

const goodHeader = `{"alg":"ES256","kid":"k1","typ":"JWT"}`

func TestVerifyChecks(t *testing.T) {
	long := strings.Repeat("x", 200)
	for name, tc := range map[string]struct {
		header string
		claims map[string]any
		opts   Options
		is     error
		want   string
	}{
		"good":              {},
		"unknown members":   {header: `{"alg":"ES256","kid":"k1","x5t":"a","jku":"https://evil.example"}`},
		"no alg":            {header: `{"kid":"k1"}`, is: ErrAlgorithm, want: `""`},
		"none":              {header: `{"alg":"none","kid":"k1"}`, is: ErrAlgorithm, want: `"none"`},
		"None":              {header: `{"alg":"None","kid":"k1"}`, is: ErrAlgorithm},
		"HS256":             {header: `{"alg":"HS256","kid":"k1"}`, is: ErrAlgorithm},
		"alg of another":    {header: `{"alg":"ES384","kid":"k1"}`, is: ErrAlgorithm, want: "for ES256 only"},
		"alg a number":      {header: `{"alg":1,"kid":"k1"}`, is: ErrMalformed, want: "alg is not a string"},
		"alg null":          {header: `{"alg":null,"kid":"k1"}`, is: ErrMalformed, want: "alg is not a string"},
		"alg twice":         {header: `{"alg":"ES256","alg":"none","kid":"k1"}`, is: ErrMalformed, want: "appears twice"},
		"alg case twin":     {header: `{"alg":"ES256","ALG":"none","kid":"k1"}`, is: ErrMalformed, want: "could be taken for"},
		"kid folded":        {header: "{\"alg\":\"ES256\",\"kid\":\"k1\",\"\u212aid\":\"x\"}", is: ErrMalformed, want: "could be taken for"},
		"no kid":            {header: `{"alg":"ES256"}`, is: ErrMalformed, want: "no kid"},
		"other kid":         {header: `{"alg":"ES256","kid":"k2"}`, is: ErrUnknownKey, want: `"k1"`},
		"long kid":          {header: `{"alg":"ES256","kid":"` + long + `"}`, is: ErrUnknownKey, want: "…"},
		"crit":              {header: `{"alg":"ES256","kid":"k1","crit":["exp"]}`, is: ErrMalformed, want: "crit"},
		"crit null":         {header: `{"alg":"ES256","kid":"k1","crit":null}`, is: ErrMalformed, want: "crit"},
		"header null":       {header: `null`, is: ErrMalformed, want: "not an object"},
		"header array":      {header: `[]`, is: ErrMalformed},
		"trailing":          {header: goodHeader + " x", is: ErrMalformed, want: "data after"},
		"exp case twin":     {claims: map[string]any{"EXP": at(time.Hour)}, is: ErrMalformed, want: `"EXP" could be taken for "exp"`},
		"iss folded":        {claims: map[string]any{"i\u017fs": "x"}, is: ErrMalformed, want: `could be taken for "iss"`},
		"Jti alone":         {claims: map[string]any{"Jti": "x"}, is: ErrMalformed, want: `could be taken for "jti"`},
		"typ":               {opts: Options{Typ: "application/jwt"}},
		"wrong typ":         {opts: Options{Typ: "at+jwt"}, is: ErrType, want: `"JWT", wanted "at+jwt"`},
		"missing typ":       {header: `{"alg":"ES256","kid":"k1"}`, opts: Options{Typ: "JWT"}, is: ErrType},
		"issuer":            {opts: Options{Issuer: "https://issuer.example"}},
		"wrong issuer":      {opts: Options{Issuer: "https://other.example"}, is: ErrIssuer, want: "https://issuer.example"},
		"issuer by prefix":  {opts: Options{Issuer: "https://issuer.example/"}, is: ErrIssuer},
		"no issuer":         {claims: map[string]any{"iss": nil}, opts: Options{Issuer: "i"}, is: ErrIssuer},
		"audience":          {claims: map[string]any{"aud": []string{"a", "b"}}, opts: Options{Audience: "b"}},
		"audience a string": {claims: map[string]any{"aud": "b"}, opts: Options{Audience: "b"}},
		"wrong audience":    {opts: Options{Audience: "b"}, is: ErrAudience, want: "api://orders"},
		"no audience":       {claims: map[string]any{"aud": nil}, opts: Options{Audience: "b"}, is: ErrAudience, want: "no audience"},
		"aud a number":      {claims: map[string]any{"aud": 1}, is: ErrMalformed, want: "aud"},
		"aud holds null":    {claims: map[string]any{"aud": []any{"a", nil}}, is: ErrMalformed, want: "aud"},
		"iss a number":      {claims: map[string]any{"iss": 1}, is: ErrMalformed, want: "iss is not a string"},
		"no exp":            {claims: map[string]any{"exp": nil}, is: ErrMalformed, want: "no exp"},
		"exp a string":      {claims: map[string]any{"exp": "soon"}, is: ErrMalformed, want: "exp"},
		"exp negative":      {claims: map[string]any{"exp": -1}, is: ErrMalformed, want: "exp"},
		"exp far":           {claims: map[string]any{"exp": 1e300}, is: ErrMalformed, want: "exp"},
		"exp now":           {claims: map[string]any{"exp": at(0)}, is: ErrExpired, want: "0s ago"},
		"exp in leeway":     {claims: map[string]any{"exp": at(-59 * time.Second)}, opts: Options{Leeway: time.Minute}},
		"exp past leeway":   {claims: map[string]any{"exp": at(-time.Minute)}, opts: Options{Leeway: time.Minute}, is: ErrExpired, want: "1m0s ago"},
		"exp a fraction":    {claims: map[string]any{"exp": float64(at(0)) + 0.5}},
		"nbf ahead":         {claims: map[string]any{"nbf": at(11 * time.Second)}, opts: Options{Leeway: 10 * time.Second}, is: ErrNotYet, want: "nbf"},
		"nbf in leeway":     {claims: map[string]any{"nbf": at(10 * time.Second)}, opts: Options{Leeway: 10 * time.Second}},
		"iat ahead":         {claims: map[string]any{"iat": at(11 * time.Second)}, opts: Options{Leeway: 10 * time.Second}, is: ErrNotYet, want: "iat"},
		"no iat, no nbf":    {claims: map[string]any{"iat": nil, "nbf": nil}},
		"claim names twice": {header: goodHeader, claims: map[string]any{"x": rawTwice}, is: ErrMalformed, want: "appears twice"},
	} {
		t.Run(name, func(t *testing.T) {
			header := tc.header
			if header == "" {
				header = goodHeader
			}
			raw, keys := compact(t, header, string(claimsOf(t, tc.claims)))
			tc.opts.Now = now
			_, err := Verify(keys, raw, tc.opts)
			if !errors.Is(err, tc.is) {
				t.Fatalf("Verify = %v, want %v", err, tc.is)
			}
			if tc.want != "" {
				wantError(t, err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), long) {
				t.Errorf("the error repeats what came from outside: %v", err)
			}
		})
	}
}

type twice struct{}

func (twice) MarshalJSON() ([]byte, error) { return []byte(`{"a":1,"a":2}`), nil }

var rawTwice = twice{}

func TestParseShape(t *testing.T) {
	raw, keys := compact(t, goodHeader, string(claimsOf(t, nil)))
	parts := strings.Split(raw, ".")
	head, payload, sig := parts[0], parts[1], parts[2]
	// The last character of an ES256 signature carries four bits that mean nothing.
	loose := sig[:len(sig)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[(strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", sig[len(sig)-1])+1)%64])
	for name, bad := range map[string]string{
		"empty":            "",
		"two parts":        head + "." + payload,
		"four parts":       raw + ".",
		"JSON":             fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, head, payload, sig),
		"no signature":     head + "." + payload + ".",
		"no header":        "." + payload + "." + sig,
		"padded":           raw + "=",
		"loose bits":       head + "." + payload + "." + loose,
		"line break":       head + "." + payload + ".\n" + sig,
		"carriage":         head + "\r." + payload + "." + sig,
		"space":            " " + raw,
		"standard base64":  head + "." + payload + "." + "+/" + sig[2:],
		"payload no JSON":  head + "." + b64.EncodeToString([]byte("hello")) + "." + sig,
		"payload an array": head + "." + b64.EncodeToString([]byte("[]")) + "." + sig,
		"payload null":     head + "." + b64.EncodeToString([]byte("null")) + "." + sig,
		"bad UTF-8":        head + "." + b64.EncodeToString([]byte("{\"a\":\"\xff\"}")) + "." + sig,
		"too long":         head + "." + strings.Repeat("A", MaxBytes) + "." + sig,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse(bad); !errors.Is(err, ErrMalformed) {
				t.Errorf("Parse = %v, want ErrMalformed", err)
			}
			if _, err := Verify(keys, bad, Options{Now: now}); err == nil {
				t.Error("Verify takes it")
			}
		})
	}
}

func TestVerifySignature(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			key := newKey(t, alg)
			raw := build(t, Header{Alg: alg, Kid: "k1"}, claimsOf(t, nil), key)
			keys := []VerificationKey{{"k1", alg, key.Public()}}
			parts := strings.Split(raw, ".")
			sig, err := b64.DecodeString(parts[2])
			if err != nil {
				t.Fatal(err)
			}
			put := func(sig []byte) string { return parts[0] + "." + parts[1] + "." + b64.EncodeToString(sig) }
			flipped := append([]byte{sig[0] ^ 1}, sig[1:]...)
			for name, bad := range map[string]string{
				"flipped bit":   put(flipped),
				"shortened":     put(sig[1:]),
				"lengthened":    put(append([]byte{0}, sig...)),
				"all zero":      put(make([]byte, len(sig))),
				"other payload": parts[0] + "." + b64.EncodeToString(claimsOf(t, map[string]any{"sub": "root"})) + "." + parts[2],
				"other header":  b64.EncodeToString([]byte(`{"alg":"`+alg+`","kid":"k1","typ":"x"}`)) + "." + parts[1] + "." + parts[2],
			} {
				if _, err := Verify(keys, bad, Options{Now: now}); !errors.Is(err, ErrSignature) {
					t.Errorf("%s: Verify = %v, want ErrSignature", name, err)
				}
			}
			twice := append(keys, keys...)
			if _, err := Verify(twice, raw, Options{Now: now}); !errors.Is(err, ErrUnknownKey) {
				t.Errorf("two keys of one kid: %v", err)
			}
		})
	}
}

// A key that the caller labels with an algorithm that it is not for.
func TestVerifyPinsTheKey(t *testing.T) {
	for alg, other := range map[string]string{"ES256": "ES384", "PS256": "ES256", "EdDSA": "RS256", "ES512": "EdDSA"} {
		raw := build(t, Header{Alg: alg, Kid: "k1"}, claimsOf(t, nil), newKey(t, alg))
		_, err := Verify([]VerificationKey{{"k1", alg, newKey(t, other).Public()}}, raw, Options{Now: now})
		if !errors.Is(err, ErrKey) {
			t.Errorf("%s with a key for %s: %v", alg, other, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	raw, keys := compact(f, goodHeader, string(claimsOf(f, nil)))
	f.Add(raw)
	f.Add("a.b.c")
	f.Add(strings.Replace(raw, ".", "..", 1))
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := Parse(s); err == nil {
			again := b64.EncodeToString(u.Claims.Raw)
			if !strings.Contains(s, "."+again+".") {
				t.Errorf("%q reads as the payload %q: two spellings of one token", s, u.Claims.Raw)
			}
		}
		if _, err := Verify(keys, s, Options{Now: now}); err == nil && s != raw {
			t.Errorf("a forged token verifies: %q", s)
		}
	})
}
