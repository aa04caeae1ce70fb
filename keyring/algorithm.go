package keyring

import (
	"fmt"
	"slices"
	"strings"
)

// Algorithm is a JWS algorithm (RFC 7518 §3.1, RFC 8037 §3.1). Only asymmetric
// ones exist here: a shared secret cannot be published.
type Algorithm string

// The algorithms that keyturn signs with.
const (
	RS256 Algorithm = "RS256"
	RS384 Algorithm = "RS384"
	RS512 Algorithm = "RS512"
	PS256 Algorithm = "PS256"
	PS384 Algorithm = "PS384"
	PS512 Algorithm = "PS512"
	ES256 Algorithm = "ES256"
	ES384 Algorithm = "ES384"
	ES512 Algorithm = "ES512"
	EdDSA Algorithm = "EdDSA" // Ed25519 only
)

// Algorithms lists them all, in the order of documentation.
func Algorithms() []Algorithm {
	return []Algorithm{RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA}
}

// IsRSA reports whether keys of the algorithm are RSA keys.
func (a Algorithm) IsRSA() bool {
	return strings.HasPrefix(string(a), "RS") || strings.HasPrefix(string(a), "PS")
}

// Curve is the JWK `crv` of the algorithm's keys, "" for RSA.
func (a Algorithm) Curve() string {
	switch a {
	case ES256:
		return "P-256"
	case ES384:
		return "P-384"
	case ES512:
		return "P-521"
	case EdDSA:
		return "Ed25519"
	}
	return ""
}

// Check reports an algorithm that keyturn does not sign with, or a modulus
// length that does not go with it: 2048, 3072 or 4096 bits for RSA (RFC 7518
// §3.3 wants 2048 at least), 0 otherwise.
func (a Algorithm) Check(rsaBits int) error {
	if !slices.Contains(Algorithms(), a) {
		return fmt.Errorf("algorithm %q: use one of %v", a, Algorithms())
	}
	if a.IsRSA() && rsaBits != 2048 && rsaBits != 3072 && rsaBits != 4096 {
		return fmt.Errorf("rsa_bits %d: use 2048, 3072 or 4096", rsaBits)
	}
	if !a.IsRSA() && rsaBits != 0 {
		return fmt.Errorf("rsa_bits %d: %s has no modulus; leave it out", rsaBits, a)
	}
	return nil
}
