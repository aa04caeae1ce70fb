package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // the hashes that the methods name
	"errors"
	"fmt"
	"strings"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of an RSA modulus: RFC 7518 §3.3 wants 2048 at least; the upper one
// bounds the work that a key set of somebody else can cause.
const (
	minRSABits = 2048
	maxRSABits = 16384
)

// signing is what the methods of this package have beside golang-jwt's
// interface: a signature over octets, by a key that is known to fit.
type signing interface {
	jwt.SigningMethod
	sign(input []byte, key crypto.Signer) ([]byte, error)
}

// signed is the Sign of golang-jwt's interface, for all methods.
func signed(m signing, input string, key any) ([]byte, error) {
	signer, err := signerFor(m.Alg(), key)
	if err != nil {
		return nil, err
	}
	return m.sign([]byte(input), signer)
}

// Method is the signing method of an algorithm. Its Sign takes any
// crypto.Signer, its Verify the public key; both refuse a key that the
// algorithm cannot use. Algorithms without a public key (none, HS256 …) do not
// exist here: the error wraps ErrAlgorithm.
func Method(alg string) (jwt.SigningMethod, error) { return methodOf(alg) }

func methodOf(alg string) (signing, error) {
	switch alg {
	case "RS256":
		return rsaMethod{&jwt.SigningMethodRSA{Name: alg, Hash: crypto.SHA256}}, nil
	case "RS384":
		return rsaMethod{&jwt.SigningMethodRSA{Name: alg, Hash: crypto.SHA384}}, nil
	case "RS512":
		return rsaMethod{&jwt.SigningMethodRSA{Name: alg, Hash: crypto.SHA512}}, nil
	case "PS256":
		return newPSS(alg, crypto.SHA256), nil
	case "PS384":
		return newPSS(alg, crypto.SHA384), nil
	case "PS512":
		return newPSS(alg, crypto.SHA512), nil
	case "ES256":
		return ecdsaMethod{&jwt.SigningMethodECDSA{Name: alg, Hash: crypto.SHA256, KeySize: 32, CurveBits: 256}}, nil
	case "ES384":
		return ecdsaMethod{&jwt.SigningMethodECDSA{Name: alg, Hash: crypto.SHA384, KeySize: 48, CurveBits: 384}}, nil
	case "ES512":
		return ecdsaMethod{&jwt.SigningMethodECDSA{Name: alg, Hash: crypto.SHA512, KeySize: 66, CurveBits: 521}}, nil
	case "EdDSA":
		return edMethod{&jwt.SigningMethodEd25519{}}, nil
	}
	return nil, fmt.Errorf("%w: %q is not one of %s", ErrAlgorithm, shorten(alg), strings.Join(Algorithms(), " "))
}

// Algorithms lists the algorithms that Method knows.
func Algorithms() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// rsaMethod is RSASSA-PKCS1-v1_5 (RFC 7518 §3.3).
type rsaMethod struct{ *jwt.SigningMethodRSA }

func (m rsaMethod) Sign(input string, key any) ([]byte, error) { return signed(m, input, key) }

func (m rsaMethod) sign(input []byte, key crypto.Signer) ([]byte, error) {
	// PKCS #1 v1.5 has no random part.
	return key.Sign(nil, digest(m.Hash, input), m.Hash)
}

func (m rsaMethod) Verify(input string, sig []byte, key any) error {
	if err := fits(m.Name, key); err != nil {
		return err
	}
	return m.SigningMethodRSA.Verify(input, sig, key)
}

// pssMethod is RSASSA-PSS with a salt of the length of the hash (RFC 7518
// §3.5). golang-jwt's own verifies any length of salt.
type pssMethod struct{ *jwt.SigningMethodRSAPSS }

func newPSS(alg string, hash crypto.Hash) pssMethod {
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	return pssMethod{&jwt.SigningMethodRSAPSS{
		SigningMethodRSA: &jwt.SigningMethodRSA{Name: alg, Hash: hash},
		Options:          opts,
		VerifyOptions:    opts,
	}}
}

func (m pssMethod) Sign(input string, key any) ([]byte, error) { return signed(m, input, key) }

func (m pssMethod) sign(input []byte, key crypto.Signer) ([]byte, error) {
	return key.Sign(rand.Reader, digest(m.Hash, input), m.Options)
}

func (m pssMethod) Verify(input string, sig []byte, key any) error {
	if err := fits(m.Name, key); err != nil {
		return err
	}
	return m.SigningMethodRSAPSS.Verify(input, sig, key)
}

// ecdsaMethod is ECDSA (RFC 7518 §3.4). Without a source of randomness Go's
// keys sign deterministically (RFC 6979, FIPS 186-5 §6.3.2).
type ecdsaMethod struct{ *jwt.SigningMethodECDSA }

func (m ecdsaMethod) Sign(input string, key any) ([]byte, error) { return signed(m, input, key) }

func (m ecdsaMethod) sign(input []byte, key crypto.Signer) ([]byte, error) {
	der, err := key.Sign(nil, digest(m.Hash, input), m.Hash)
	if err != nil {
		return nil, err
	}
	return fixedWidth(der, m.KeySize)
}

func (m ecdsaMethod) Verify(input string, sig []byte, key any) error {
	if err := fits(m.Name, key); err != nil {
		return err
	}
	return m.SigningMethodECDSA.Verify(input, sig, key)
}

// fixedWidth turns the ASN.1 signature of a crypto.Signer into r ‖ s, each of
// size octets (RFC 7518 §3.4).
func fixedWidth(der []byte, size int) ([]byte, error) {
	var seq cryptobyte.String
	var r, s []byte
	whole := cryptobyte.String(der)
	if !whole.ReadASN1(&seq, asn1.SEQUENCE) || !whole.Empty() || !seq.ReadASN1Integer(&r) || !seq.ReadASN1Integer(&s) || !seq.Empty() {
		return nil, errors.New("ECDSA signature of the key: not two positive integers in DER")
	}
	out := make([]byte, 2*size)
	for i, n := range [][]byte{r, s} { // without leading zeros
		if len(n) > size || n[0] == 0 {
			return nil, errors.New("ECDSA signature of the key: out of range")
		}
		copy(out[(i+1)*size-len(n):], n)
	}
	return out, nil
}

// edMethod is Ed25519 (RFC 8037 §3.1).
type edMethod struct{ *jwt.SigningMethodEd25519 }

func (m edMethod) Sign(input string, key any) ([]byte, error) { return signed(m, input, key) }

func (m edMethod) sign(input []byte, key crypto.Signer) ([]byte, error) {
	// Not hashed before, and without a random part (RFC 8032 §5.1.6).
	return key.Sign(nil, input, crypto.Hash(0))
}

func (m edMethod) Verify(input string, sig []byte, key any) error {
	if err := fits(m.Alg(), key); err != nil {
		return err
	}
	return m.SigningMethodEd25519.Verify(input, sig, key)
}

func digest(hash crypto.Hash, input []byte) []byte {
	if hash == crypto.SHA256 { // most tokens; it needs no state on the heap
		sum := sha256.Sum256(input)
		return sum[:]
	}
	h := hash.New()
	h.Write(input)
	return h.Sum(nil)
}

func signerFor(alg string, key any) (crypto.Signer, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: a %T cannot sign", ErrKey, key)
	}
	return signer, fits(alg, signer.Public())
}

// fits reports a public key that the algorithm cannot use. The algorithm is
// pinned to the key (RFC 8725 §3.1): the curve too, not only its kind.
func fits(alg string, key any) error {
	want := map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg]
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch bits := k.N.BitLen(); {
		case alg[:2] != "RS" && alg[:2] != "PS":
			return fmt.Errorf("%w: an RSA key, but the algorithm is %s", ErrKey, alg)
		case bits < minRSABits || bits > maxRSABits:
			return fmt.Errorf("%w: an RSA modulus of %d bits; %d to %d are allowed", ErrKey, bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve == nil || k.Params().Name != want {
			return fmt.Errorf("%w: an EC key of another curve than the algorithm %s wants", ErrKey, alg)
		}
	case ed25519.PublicKey:
		if alg != "EdDSA" || len(k) != ed25519.PublicKeySize {
			return fmt.Errorf("%w: an Ed25519 key of %d octets, and the algorithm is %s", ErrKey, len(k), alg)
		}
	default:
		return fmt.Errorf("%w: a %T", ErrKey, key)
	}
	return nil
}
