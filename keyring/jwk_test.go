package keyring

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"testing"
)

// The example key of RFC 7638 §3.1.
const rfc7638N = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"

// The public key of RFC 8037 appendix A.2.
const rfc8037X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"

func TestThumbprintVectors(t *testing.T) {
	for _, tc := range []struct {
		name string
		jwk  JWK
		want string
	}{
		{"RFC 7638 §3.1", JWK{Kty: "RSA", Alg: RS256, Kid: "2011-04-29", N: rfc7638N, E: "AQAB"}, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"},
		{"RFC 8037 A.3", JWK{Kty: "OKP", Crv: "Ed25519", X: rfc8037X}, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		// sha256 of {"crv":"P-256","kty":"EC","x":"AA","y":"AQ"}, by openssl
		{"EC, members in lexical order", JWK{Kty: "EC", Crv: "P-256", X: "AA", Y: "AQ"}, "fpsA8udergWQQtZ5ijw9k_6RoFRa-SBsNr8jkweRkU4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.jwk.Thumbprint(); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestVectorKeysAreRead(t *testing.T) {
	for _, k := range []JWK{
		{Kty: "RSA", Use: "sig", Alg: RS256, Kid: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs", N: rfc7638N, E: "AQAB"},
		{Kty: "OKP", Use: "sig", Alg: EdDSA, Kid: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", Crv: "Ed25519", X: rfc8037X},
	} {
		pub, err := k.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		again, err := NewJWK(pub, k.Alg)
		if err != nil {
			t.Fatal(err)
		}
		if again != k {
			t.Errorf("got %+v, want %+v", again, k)
		}
	}
}

func TestJWKRoundTrip(t *testing.T) {
	type equal interface{ Equal(crypto.PublicKey) bool }
	for _, alg := range Algorithms() {
		sizes := []int{0}
		if alg.IsRSA() {
			sizes = []int{2048, 3072, 4096}
		}
		for _, bits := range sizes {
			pub := publicFor(t, alg, bits, 7)
			k, err := NewJWK(pub, alg)
			if err != nil {
				t.Fatalf("%s %d: %v", alg, bits, err)
			}
			doc, err := json.Marshal(k)
			if err != nil {
				t.Fatal(err)
			}
			var read JWK
			if err := json.Unmarshal(doc, &read); err != nil {
				t.Fatal(err)
			}
			back, err := read.PublicKey()
			if err != nil {
				t.Fatalf("%s %d: %v", alg, bits, err)
			}
			if !pub.(equal).Equal(back) {
				t.Errorf("%s %d: another key came back", alg, bits)
			}
			if k.Use != "sig" || k.Alg != alg || k.Kid != k.Thumbprint() || k.Kty == "" {
				t.Errorf("%s: use, alg, kid or kty is wrong: %s", alg, doc)
			}
			if alg.IsRSA() && (&Key{JWK: k}).modulusBits() != bits {
				t.Errorf("%s: a modulus of %d bits counts as %d", alg, bits, (&Key{JWK: k}).modulusBits())
			}
		}
	}
}

// TestCoordinatesKeepTheirWidth: RFC 7518 §6.2.1.2 wants the octets of the
// field, leading zeros included. One key in 128 has one.
func TestCoordinatesKeepTheirWidth(t *testing.T) {
	for _, tc := range []struct {
		alg   Algorithm
		curve elliptic.Curve
		width int
	}{{ES256, elliptic.P256(), 32}, {ES384, elliptic.P384(), 48}, {ES512, elliptic.P521(), 66}} {
		var zeroX, zeroY bool
		for n := 1; !zeroX || !zeroY; n++ {
			if n > 5000 {
				t.Fatalf("%s: no point with a leading zero was found", tc.alg)
			}
			pub := ecPublic(t, tc.curve, n)
			k, err := NewJWK(pub, tc.alg)
			if err != nil {
				t.Fatal(err)
			}
			x, _ := b64.DecodeString(k.X)
			y, _ := b64.DecodeString(k.Y)
			if len(x) != tc.width || len(y) != tc.width {
				t.Fatalf("%s %d: x has %d octets, y %d, want %d", tc.alg, n, len(x), len(y), tc.width)
			}
			if x[0] != 0 && y[0] != 0 {
				continue
			}
			zeroX, zeroY = zeroX || x[0] == 0, zeroY || y[0] == 0
			back, err := k.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if !pub.Equal(back) {
				t.Errorf("%s %d: another key came back", tc.alg, n)
			}
			narrow := k
			narrow.X = b64.EncodeToString(bytes.TrimLeft(x, "\x00"))
			narrow.Y = b64.EncodeToString(bytes.TrimLeft(y, "\x00"))
			narrow.Kid = narrow.Thumbprint()
			if _, err := narrow.PublicKey(); err == nil {
				t.Errorf("%s: coordinates without their leading zeros are taken", tc.alg)
			}
		}
	}
}

func TestNewJWKRefuses(t *testing.T) {
	odd := rsaPublic(2048, 1)
	odd.E = 3
	for _, tc := range []struct {
		name string
		pub  crypto.PublicKey
		alg  Algorithm
		want string
	}{
		{"RSA of 1024 bits", rsaPublic(1024, 1), RS256, "use 2048, 3072 or 4096"},
		{"RSA of 2047 bits", rsaPublic(2047, 1), RS256, "use 2048, 3072 or 4096"},
		{"RSA with e = 3", odd, RS256, "is not 65537"},
		{"RSA without a modulus", &rsa.PublicKey{E: 65537}, RS256, "without a modulus"},
		{"RSA for ES256", rsaPublic(2048, 1), ES256, "an RSA key cannot sign ES256"},
		{"an algorithm that looks like RSA's", rsaPublic(2048, 1), "RS1", "use one of"},
		{"P-256 for ES384", ecPublic(t, elliptic.P256(), 1), ES384, `wants curve "P-384"`},
		{"P-256 for RS256", ecPublic(t, elliptic.P256(), 1), RS256, "cannot sign RS256"},
		{"P-224", ecPublic(t, elliptic.P224(), 1), ES256, "cannot sign ES256"},
		{"EC without a curve", &ecdsa.PublicKey{}, ES256, "cannot sign ES256"},
		//lint:ignore SA1019 a point that no constructor would make
		{"a point off the curve", &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)}, ES256, "EC public key"},
		{"Ed25519 for ES256", edPublic(1), ES256, "an Ed25519 key cannot sign ES256"},
		{"Ed25519 of 31 octets", ed25519.PublicKey(make([]byte, 31)), EdDSA, "31 octets"},
		{"a private key", ed25519.NewKeyFromSeed(make([]byte, 32)), EdDSA, "public key of type ed25519.PrivateKey"},
		{"nothing", nil, EdDSA, "public key of type <nil>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := NewJWK(tc.pub, tc.alg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %+v, %v, want an error with %q", k, err, tc.want)
			}
		})
	}
}

func TestPublicKeyRefuses(t *testing.T) {
	ec, ed, r := testJWK(t, ES256, 0, 1), testJWK(t, EdDSA, 0, 1), testJWK(t, RS256, 2048, 1)
	n, _ := b64.DecodeString(r.N)
	// with sets members, then gives the key the kid that goes with them.
	with := func(k JWK, set func(*JWK)) JWK {
		set(&k)
		k.Kid = k.Thumbprint()
		return k
	}
	for _, tc := range []struct {
		name string
		jwk  JWK
	}{
		{"nothing", JWK{}},
		{"a symmetric key", with(ed, func(k *JWK) { k.Kty = "oct" })},
		{"another kid", func() JWK { k := ec; k.Kid = ed.Kid; return k }()},
		{"no kid", func() JWK { k := ec; k.Kid = ""; return k }()},
		{"use enc", with(ec, func(k *JWK) { k.Use = "enc" })},
		{"no alg", with(ec, func(k *JWK) { k.Alg = "" })},
		{"alg none", with(ec, func(k *JWK) { k.Alg = "none" })},
		{"alg of another kind", with(ec, func(k *JWK) { k.Alg = EdDSA })},
		{"RSA alg with EC members", with(ec, func(k *JWK) { k.Alg = RS256 })},
		{"unknown curve", with(ec, func(k *JWK) { k.Crv = "secp256k1" })},
		{"curve of another width", with(ec, func(k *JWK) { k.Crv = "P-384" })},
		{"x and y swapped", with(ec, func(k *JWK) { k.X, k.Y = k.Y, k.X })},
		{"EC without y", with(ec, func(k *JWK) { k.Y = "" })},
		{"padded x", with(ec, func(k *JWK) { k.X += "=" })},
		{"plain base64", with(ec, func(k *JWK) { k.X = "+/" + k.X[2:] })},
		{"a member of another type", with(ec, func(k *JWK) { k.N = "AQAB" })},
		{"Ed25519 of 33 octets", with(ed, func(k *JWK) { k.X = b64.EncodeToString(append(edPublic(1), 0)) })},
		{"Ed25519 with y", with(ed, func(k *JWK) { k.Y = "AA" })},
		{"X25519", with(ed, func(k *JWK) { k.Crv = "X25519" })},
		{"n with a leading zero", with(r, func(k *JWK) { k.N = b64.EncodeToString(append([]byte{0}, n...)) })},
		{"e with a leading zero", with(r, func(k *JWK) { k.E = "AAEAAQ" })},
		{"e of 3", with(r, func(k *JWK) { k.E = "Aw" })},
		{"huge e", with(r, func(k *JWK) { k.E = "AQABAQAB" })},
		{"no e", with(r, func(k *JWK) { k.E = "" })},
		{"no n", with(r, func(k *JWK) { k.N = "" })},
		{"short n", with(r, func(k *JWK) { k.N = b64.EncodeToString(n[:128]) })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if pub, err := tc.jwk.PublicKey(); err == nil {
				t.Errorf("taken as %T", pub)
			} else if !strings.Contains(err.Error(), "JWK") {
				t.Errorf("the error does not say what it is about: %v", err)
			}
		})
	}
}

// TestJWKHasNoPrivateMember: RFC 7517 §9.2. A field that held one could be
// published by mistake.
func TestJWKHasNoPrivateMember(t *testing.T) {
	private := []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
	var want = map[string]bool{"kty": true, "use": true, "alg": true, "kid": true, "crv": true, "x": true, "y": true, "n": true, "e": true}
	typ := reflect.TypeFor[JWK]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Type.Kind() != reflect.String || f.Anonymous || !f.IsExported() {
			t.Errorf("field %s is no plain string: something could hide in it", f.Name)
		}
		for _, p := range private {
			if strings.EqualFold(name, p) || strings.EqualFold(f.Name, p) {
				t.Errorf("field %s is the private member %q", f.Name, p)
			}
		}
		if !want[name] {
			t.Errorf("member %q is new: is it public for every key type?", name)
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("member %q is gone", name)
	}
	if set := reflect.TypeFor[JWKSet](); set.NumField() != 1 || set.Field(0).Type != reflect.TypeFor[[]JWK]() {
		t.Error("JWKSet holds more than keys")
	}
}

func TestAlgorithmCheck(t *testing.T) {
	for _, tc := range []struct {
		alg  Algorithm
		bits int
		want string
	}{
		{ES256, 0, ""}, {EdDSA, 0, ""}, {RS256, 3072, ""}, {PS512, 4096, ""},
		{"none", 0, `algorithm "none": use one of`}, {"HS256", 0, "use one of"}, {"es256", 0, "use one of"}, {"", 0, "use one of"},
		{RS256, 0, "rsa_bits 0: use 2048, 3072 or 4096"}, {PS256, 1024, "use 2048"}, {RS256, 8192, "use 2048"},
		{ES256, 2048, "ES256 has no modulus; leave it out"}, {EdDSA, -1, "leave it out"},
	} {
		err := tc.alg.Check(tc.bits)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%q with %d bits: got %v, want %q", tc.alg, tc.bits, err, tc.want)
		}
	}
}
