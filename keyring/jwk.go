package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// JWK is a public key as it is published (RFC 7517). The type has no member
// that could hold a private half. Members are declared in the order in which
// they are written, so that a set is byte-stable.
type JWK struct {
	Kty string    `json:"kty"`
	Use string    `json:"use"`
	Alg Algorithm `json:"alg"`
	Kid string    `json:"kid"`
	Crv string    `json:"crv,omitempty"`
	X   string    `json:"x,omitempty"`
	Y   string    `json:"y,omitempty"`
	N   string    `json:"n,omitempty"`
	E   string    `json:"e,omitempty"`
}

var b64 = base64.RawURLEncoding.Strict()

// NewJWK describes a public key for an algorithm; its kid is the thumbprint
// (RFC 7638). It refuses a key that the algorithm cannot use.
func NewJWK(pub crypto.PublicKey, alg Algorithm) (JWK, error) {
	k := JWK{Use: "sig", Alg: alg}
	switch p := pub.(type) {
	case *rsa.PublicKey:
		if !alg.IsRSA() {
			return JWK{}, fmt.Errorf("an RSA key cannot sign %s", alg)
		}
		if p.N == nil {
			return JWK{}, errors.New("an RSA public key without a modulus")
		}
		if p.E != 65537 {
			return JWK{}, fmt.Errorf("an RSA public exponent of %d is not 65537", p.E)
		}
		if err := alg.Check(p.N.BitLen()); err != nil {
			return JWK{}, err
		}
		// RFC 7518 §6.3.1: no leading zero octets; big.Int.Bytes has none.
		k.Kty, k.N, k.E = "RSA", b64.EncodeToString(p.N.Bytes()), b64.EncodeToString(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		if p.Curve == nil || p.Params().Name != alg.Curve() {
			return JWK{}, fmt.Errorf("this EC key cannot sign %s, which wants curve %q", alg, alg.Curve())
		}
		point, err := p.Bytes() // uncompressed: 4, then x and y at the width of the field (RFC 7518 §6.2.1.2)
		if err != nil {
			return JWK{}, fmt.Errorf("EC public key: %w", err)
		}
		size := (len(point) - 1) / 2
		k.Kty, k.Crv, k.X, k.Y = "EC", alg.Curve(), b64.EncodeToString(point[1:1+size]), b64.EncodeToString(point[1+size:])
	case ed25519.PublicKey:
		if alg != EdDSA {
			return JWK{}, fmt.Errorf("an Ed25519 key cannot sign %s", alg)
		}
		if len(p) != ed25519.PublicKeySize {
			return JWK{}, fmt.Errorf("an Ed25519 public key of %d octets", len(p))
		}
		k.Kty, k.Crv, k.X = "OKP", "Ed25519", b64.EncodeToString(p)
	default:
		return JWK{}, fmt.Errorf("public key of type %T", pub)
	}
	k.Kid = k.Thumbprint()
	return k, nil
}

// Thumbprint is the SHA-256 JWK thumbprint, base64url (RFC 7638 §3; OKP: RFC
// 8037 §2): the required members only, in lexical order.
func (k JWK) Thumbprint() string {
	var required any
	switch k.Kty {
	case "RSA":
		required = struct {
			E   string `json:"e"`
			Kty string `json:"kty"`
			N   string `json:"n"`
		}{k.E, k.Kty, k.N}
	case "EC":
		required = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
			Y   string `json:"y"`
		}{k.Crv, k.Kty, k.X, k.Y}
	default:
		required = struct {
			Crv string `json:"crv"`
			Kty string `json:"kty"`
			X   string `json:"x"`
		}{k.Crv, k.Kty, k.X}
	}
	doc, err := json.Marshal(required)
	if err != nil { // strings only: cannot happen
		return ""
	}
	sum := sha256.Sum256(doc)
	return b64.EncodeToString(sum[:])
}

// PublicKey is the key that the JWK describes: *rsa.PublicKey,
// *ecdsa.PublicKey or ed25519.PublicKey. It refuses one that NewJWK would not
// have written: another width, another point, another kid.
func (k JWK) PublicKey() (crypto.PublicKey, error) {
	pub, err := k.parse()
	if err != nil {
		return nil, fmt.Errorf("JWK %q: %w", k.Kid, err)
	}
	again, err := NewJWK(pub, k.Alg)
	if err != nil {
		return nil, fmt.Errorf("JWK %q: %w", k.Kid, err)
	}
	if again != k {
		return nil, fmt.Errorf("JWK %q: not in the form that its key has", k.Kid)
	}
	return pub, nil
}

func (k JWK) parse() (crypto.PublicKey, error) {
	member := func(name, value string) ([]byte, error) {
		out, err := b64.DecodeString(value)
		if err != nil || len(out) == 0 {
			return nil, fmt.Errorf("member %s is not base64url", name)
		}
		return out, nil
	}
	switch k.Kty {
	case "RSA":
		n, errN := member("n", k.N)
		e, errE := member("e", k.E)
		if err := errors.Join(errN, errE); err != nil {
			return nil, err
		}
		if len(e) > 4 {
			return nil, errors.New("member e is too large")
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
	case "EC":
		curve, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		if !ok {
			return nil, fmt.Errorf("curve %q", k.Crv)
		}
		x, errX := member("x", k.X)
		y, errY := member("y", k.Y)
		if err := errors.Join(errX, errY); err != nil {
			return nil, err
		}
		return ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	case "OKP":
		x, err := member("x", k.X)
		if err != nil {
			return nil, err
		}
		if len(x) != ed25519.PublicKeySize {
			return nil, errors.New("member x has not 32 octets")
		}
		return ed25519.PublicKey(x), nil
	}
	return nil, fmt.Errorf("kty %q", k.Kty)
}

// JWKSet is the published document (RFC 7517 §5).
type JWKSet struct {
	Keys []JWK `json:"keys"`
}
