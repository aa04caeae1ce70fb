package half_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/keyring"
)

func generate(t *testing.T, alg keyring.Algorithm, bits int) *half.Key {
	t.Helper()
	k, err := half.Generate(nil, alg, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func bitsOf(alg keyring.Algorithm) int {
	if alg.IsRSA() {
		return 2048
	}
	return 0
}

func TestEveryAlgorithmSurvivesTheStore(t *testing.T) {
	type kind struct {
		alg  keyring.Algorithm
		bits int
	}
	kinds := []kind{{keyring.RS256, 3072}, {keyring.PS512, 4096}}
	for _, alg := range keyring.Algorithms() {
		kinds = append(kinds, kind{alg, bitsOf(alg)})
	}
	for _, kind := range kinds {
		t.Run(fmt.Sprintf("%s-%d", kind.alg, kind.bits), func(t *testing.T) {
			t.Parallel()
			k := generate(t, kind.alg, kind.bits)
			doc, err := half.Encode(k)
			if err != nil {
				t.Fatal(err)
			}
			again, err := half.Parse(doc, k.JWK())
			if err != nil {
				t.Fatal(err)
			}
			if again.JWK() != k.JWK() {
				t.Errorf("%+v came back as %+v", k.JWK(), again.JWK())
			}
			if k.JWK().Kid != k.JWK().Thumbprint() || k.JWK().Alg != kind.alg {
				t.Errorf("JWK %+v", k.JWK())
			}
		})
	}
}

func TestECDSAIsDeterministic(t *testing.T) {
	k := generate(t, keyring.ES256, 0)
	digest := make([]byte, 32)
	a, errA := k.Sign(rand.Reader, digest, crypto.SHA256)
	b, errB := k.Sign(rand.Reader, digest, crypto.SHA256)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two signatures over the same digest differ: not RFC 6979")
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest, a) {
		t.Error("it does not verify")
	}
}

// RFC 6979 §A.2.5: the key, the message "sample" and its signature with SHA-256.
func TestRFC6979Vector(t *testing.T) {
	d, _ := hex.DecodeString("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	k, err := half.Generate(func(keyring.Algorithm, int) (crypto.Signer, error) { return private, nil }, keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := crypto.SHA256.New()
	h.Write([]byte("sample"))
	sig, err := k.Sign(nil, h.Sum(nil), crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
		"F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
	} {
		if want, _ := hex.DecodeString(part); !bytes.Contains(sig, want) {
			t.Errorf("the signature %x lacks %s", sig, part)
		}
	}
}

func TestOneAlgorithmPerKey(t *testing.T) {
	pss := func(h crypto.Hash, salt int) crypto.SignerOpts { return &rsa.PSSOptions{Hash: h, SaltLength: salt} }
	for _, tc := range []struct {
		alg  keyring.Algorithm
		opts crypto.SignerOpts
		ok   bool
	}{
		{keyring.ES256, crypto.SHA256, true},
		{keyring.ES256, crypto.SHA384, false},
		{keyring.ES256, crypto.Hash(0), false},
		{keyring.ES256, nil, false},
		{keyring.ES256, pss(crypto.SHA256, rsa.PSSSaltLengthEqualsHash), false},
		{keyring.EdDSA, crypto.Hash(0), true},
		{keyring.EdDSA, crypto.SHA512, false},
		{keyring.EdDSA, &ed25519.Options{Hash: crypto.SHA512}, false},
		{keyring.EdDSA, &ed25519.Options{Context: "other"}, false},
		{keyring.RS256, crypto.SHA256, true},
		{keyring.RS256, pss(crypto.SHA256, rsa.PSSSaltLengthEqualsHash), false},
		{keyring.PS256, crypto.SHA256, false},
		{keyring.PS256, pss(crypto.SHA256, rsa.PSSSaltLengthEqualsHash), true},
		{keyring.PS256, pss(crypto.SHA256, 32), true},
		{keyring.PS256, pss(crypto.SHA256, rsa.PSSSaltLengthAuto), false},
		{keyring.PS256, pss(crypto.SHA512, rsa.PSSSaltLengthEqualsHash), false},
	} {
		k := generate(t, tc.alg, bitsOf(tc.alg))
		size := 64
		if tc.opts != nil && tc.opts.HashFunc() != 0 {
			size = tc.opts.HashFunc().Size()
		}
		if _, err := k.Sign(nil, make([]byte, size), tc.opts); (err == nil) != tc.ok {
			t.Errorf("%s with %#v: %v, want ok %v", tc.alg, tc.opts, err, tc.ok)
		}
	}
}

// A key that signs other than its public half verifies must not survive its
// generation (fault 36).
func TestGenerationFaults(t *testing.T) {
	must := func(alg keyring.Algorithm, bits int) crypto.Signer {
		s, err := half.Random(alg, bits)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	broken := errors.New("the machine is on fire")
	for name, tc := range map[string]struct {
		alg  keyring.Algorithm
		bits int
		make func() (crypto.Signer, error)
		want string
	}{
		"the generator errs": {keyring.ES256, 0, func() (crypto.Signer, error) { return nil, broken }, broken.Error()},
		"another curve":      {keyring.ES256, 0, func() (crypto.Signer, error) { return must(keyring.ES384, 0), nil }, "P-256"},
		"another kind":       {keyring.EdDSA, 0, func() (crypto.Signer, error) { return must(keyring.ES256, 0), nil }, "EdDSA"},
		"a shorter modulus":  {keyring.RS256, 3072, func() (crypto.Signer, error) { return must(keyring.RS256, 2048), nil }, "2048 bits"},
		"not ours to sign":   {keyring.ES256, 0, func() (crypto.Signer, error) { return &half.Key{}, nil }, "cannot sign"},
		"an EC public half of another": {keyring.ES256, 0, func() (crypto.Signer, error) {
			a, b := must(keyring.ES256, 0).(*ecdsa.PrivateKey), must(keyring.ES256, 0).(*ecdsa.PrivateKey)
			a.PublicKey = b.PublicKey
			return a, nil
		}, "dropped"},
		"an Ed25519 public half of another": {keyring.EdDSA, 0, func() (crypto.Signer, error) {
			a, b := must(keyring.EdDSA, 0).(ed25519.PrivateKey), must(keyring.EdDSA, 0).(ed25519.PrivateKey)
			copy(a[32:], b[32:])
			return a, nil
		}, "dropped"},
		"an RSA modulus of another": {keyring.RS256, 2048, func() (crypto.Signer, error) {
			a, b := must(keyring.RS256, 2048).(*rsa.PrivateKey), must(keyring.RS256, 2048).(*rsa.PrivateKey)
			a.PublicKey = b.PublicKey
			return a, nil
		}, "dropped"},
		"an unknown algorithm": {"HS256", 0, func() (crypto.Signer, error) { return nil, broken }, "HS256"},
		"RSA of 1024 bits":     {keyring.RS256, 1024, func() (crypto.Signer, error) { return nil, broken }, "2048"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := half.Generate(func(keyring.Algorithm, int) (crypto.Signer, error) { return tc.make() }, tc.alg, tc.bits)
			if err == nil || k != nil {
				t.Fatal("the key was kept")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not say %q", err, tc.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	k, other := generate(t, keyring.ES256, 0), generate(t, keyring.ES256, 0)
	doc, err := half.Encode(k)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(doc)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := private.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	typed := func(name string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: name, Bytes: der})
	}
	p384 := k.JWK()
	p384.Alg = keyring.ES384
	for name, tc := range map[string]struct {
		doc  []byte
		want keyring.JWK
	}{
		"nothing":           {nil, k.JWK()},
		"no PEM":            {block.Bytes, k.JWK()},
		"cut off":           {doc[:len(doc)/2], k.JWK()},
		"another type":      {typed("EC PRIVATE KEY", block.Bytes), k.JWK()},
		"cut DER":           {typed("PRIVATE KEY", block.Bytes[:40]), k.JWK()},
		"two blocks":        {append(bytes.Clone(doc), doc...), k.JWK()},
		"text before it":    {append([]byte("x\n"), doc...), k.JWK()},
		"another key":       {doc, other.JWK()},
		"another algorithm": {doc, p384},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := half.Parse(tc.doc, tc.want)
			if !errors.Is(err, keyring.ErrMismatch) || got != nil {
				t.Fatalf("Parse = %v, %v", got, err)
			}
			searchSecret(t, err.Error(), secret)
		})
	}
}

func TestRedaction(t *testing.T) {
	d := big.NewInt(0)
	for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.EdDSA, keyring.RS256} {
		var private crypto.Signer
		k, err := half.Generate(func(a keyring.Algorithm, bits int) (crypto.Signer, error) {
			s, err := half.Random(a, bits)
			private = s
			return s, err
		}, alg, bitsOf(alg))
		if err != nil {
			t.Fatal(err)
		}
		var secret []byte // what is in no public half
		switch p := private.(type) {
		case *ecdsa.PrivateKey:
			if secret, err = p.Bytes(); err != nil {
				t.Fatal(err)
			}
		case ed25519.PrivateKey:
			secret = p.Seed()
		case *rsa.PrivateKey:
			secret = p.D.Bytes()
		}
		d.SetBytes(secret)

		var signer crypto.Signer = k
		hidden := struct {
			key    half.Key
			ptr    *half.Key
			signer crypto.Signer
		}{*k, k, k}
		var out bytes.Buffer
		for _, v := range []any{k, *k, signer, hidden, &hidden, []any{k}, map[string]any{"k": *k}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
				fmt.Fprintf(&out, verb+"\n", v)
			}
			fmt.Fprintln(&out, v)
			slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", v)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", v)
			if doc, err := json.Marshal(v); err == nil {
				out.Write(doc)
			}
		}
		searchSecret(t, out.String(), secret)
		if strings.Contains(out.String(), d.String()) {
			t.Errorf("%s: printed in decimal", alg)
		}
		// Bytes in a list, as %v and %#v print a slice.
		if list := strings.Trim(fmt.Sprint(secret[:8]), "[]"); strings.Contains(out.String(), list) {
			t.Errorf("%s: printed as a list of bytes", alg)
		}
		for _, printed := range []string{fmt.Sprint(k), fmt.Sprintf("%#v", *k), signer.(fmt.Stringer).String()} {
			if printed != "[redacted]" {
				t.Errorf("%s prints as %q", alg, printed)
			}
		}
	}
}

// searchSecret looks for the secret in the forms in which it might slip out.
func searchSecret(t *testing.T, text string, secret []byte) {
	t.Helper()
	part := secret[:16]
	for form, s := range map[string]string{
		"raw": string(part), "hex": hex.EncodeToString(part), "HEX": strings.ToUpper(hex.EncodeToString(part)),
		"base64":    strings.TrimRight(base64.StdEncoding.EncodeToString(part[:15]), "="),
		"base64url": base64.RawURLEncoding.EncodeToString(part[:15]),
	} {
		if strings.Contains(text, s) {
			t.Errorf("the secret is there, in %s", form)
		}
	}
}

func FuzzParse(f *testing.F) {
	k, err := half.Generate(nil, keyring.EdDSA, 0)
	if err != nil {
		f.Fatal(err)
	}
	doc, err := half.Encode(k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := half.Parse(in, k.JWK())
		if err != nil {
			if !errors.Is(err, keyring.ErrMismatch) || got != nil {
				t.Fatalf("Parse = %v, %v", got, err)
			}
			return
		}
		if got.JWK() != k.JWK() {
			t.Fatal("another key was taken")
		}
	})
}
