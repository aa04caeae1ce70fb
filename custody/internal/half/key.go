package half

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/keyturn/keyturn/keyring"
)

const redacted = "[redacted]"

// Key is a private half. The methods that print have value receivers, so that
// a copied Key is redacted too.
type Key struct {
	jwk    keyring.JWK
	public crypto.PublicKey
	// The secret is reachable through these alone.
	sign  func(digest []byte, opts crypto.SignerOpts) ([]byte, error)
	pkcs8 func() ([]byte, error)
}

var (
	_ crypto.Signer  = (*Key)(nil)
	_ fmt.Formatter  = Key{}
	_ slog.LogValuer = Key{}
)

// newKey wraps a private key of one of the standard library's types.
func newKey(private any, alg keyring.Algorithm) (*Key, error) {
	k := new(Key)
	switch p := private.(type) {
	case *rsa.PrivateKey:
		k.public = &p.PublicKey
		k.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return p.Sign(rand.Reader, digest, opts) }
	case *ecdsa.PrivateKey:
		k.public = &p.PublicKey
		// Without a source of randomness the signature is deterministic (RFC
		// 6979, FIPS 186-5 §6.3.2): no weak nonce can give the key away.
		k.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return p.Sign(nil, digest, opts) }
	case ed25519.PrivateKey:
		if len(p) != ed25519.PrivateKeySize {
			return nil, errors.New("an Ed25519 key of the wrong size")
		}
		k.public = p.Public()
		k.sign = func(digest []byte, opts crypto.SignerOpts) ([]byte, error) { return p.Sign(nil, digest, opts) }
	default:
		return nil, fmt.Errorf("a private key of type %T cannot sign tokens", private)
	}
	k.pkcs8 = func() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(private) }
	var err error
	k.jwk, err = keyring.NewJWK(k.public, alg)
	return k, err
}

// JWK is the public half.
func (k *Key) JWK() keyring.JWK { return k.jwk }

// Public is the public half, as crypto.Signer wants it.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign signs a digest (for EdDSA the message) with the key's own algorithm. It
// refuses options of another one: a key signs with one algorithm only (RFC
// 8725 §3.1). The reader is not used; ECDSA is deterministic.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := checkOptions(k.jwk.Alg, opts); err != nil {
		return nil, fmt.Errorf("kid %q: %w", k.jwk.Kid, err)
	}
	sig, err := k.sign(digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with kid %q: %w", k.jwk.Kid, err)
	}
	return sig, nil
}

func checkOptions(alg keyring.Algorithm, opts crypto.SignerOpts) error {
	if opts == nil {
		return fmt.Errorf("%s: no options given", alg)
	}
	hash := hashOf(alg)
	if opts.HashFunc() != hash {
		return fmt.Errorf("%s signs over %v, not %v", alg, hash, opts.HashFunc())
	}
	pss, isPSS := opts.(*rsa.PSSOptions)
	if isPSS != strings.HasPrefix(string(alg), "PS") {
		return fmt.Errorf("%s: options of another RSA padding", alg)
	}
	// RFC 7518 §3.5: the salt is as long as the hash.
	if isPSS && pss.SaltLength != rsa.PSSSaltLengthEqualsHash && pss.SaltLength != hash.Size() {
		return fmt.Errorf("%s: the salt must be as long as the hash", alg)
	}
	if ed, ok := opts.(*ed25519.Options); ok && ed.Context != "" {
		return fmt.Errorf("%s: no context is used (RFC 8037 §3.1)", alg)
	}
	return nil
}

// hashOf is the hash of an algorithm, 0 for EdDSA, which takes the message.
func hashOf(alg keyring.Algorithm) crypto.Hash {
	switch {
	case strings.HasSuffix(string(alg), "256"):
		return crypto.SHA256
	case strings.HasSuffix(string(alg), "384"):
		return crypto.SHA384
	case strings.HasSuffix(string(alg), "512"):
		return crypto.SHA512
	}
	return 0
}

// Format implements fmt.Formatter, for every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// String is for those who call it past fmt.
func (Key) String() string { return redacted }

// LogValue implements slog.LogValuer.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON implements json.Marshaler.
func (Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler, for the encoders that ask for it.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
