package half

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/keyring"
)

// Generator makes a private key of the standard library's type for an
// algorithm. Tests give one of their own; everybody else Random.
type Generator func(alg keyring.Algorithm, rsaBits int) (crypto.Signer, error)

// Random generates with the operating system's randomness.
func Random(alg keyring.Algorithm, rsaBits int) (crypto.Signer, error) {
	switch {
	case alg.IsRSA():
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case alg == keyring.EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	curve, ok := map[keyring.Algorithm]elliptic.Curve{
		keyring.ES256: elliptic.P256(), keyring.ES384: elliptic.P384(), keyring.ES512: elliptic.P521(),
	}[alg]
	if !ok {
		return nil, fmt.Errorf("no key pair for algorithm %q", alg)
	}
	return ecdsa.GenerateKey(curve, rand.Reader)
}

// Generate makes a key pair and proves it: what it signs must verify with the
// public half as consumers will read it. A pair that fails is dropped before
// anybody has heard of it. A nil generator is Random.
func Generate(gen Generator, alg keyring.Algorithm, rsaBits int) (*Key, error) {
	if err := alg.Check(rsaBits); err != nil {
		return nil, err
	}
	if gen == nil {
		gen = Random
	}
	private, err := gen(alg, rsaBits)
	if err != nil {
		return nil, fmt.Errorf("generate a key pair for %s: %w", alg, err)
	}
	k, err := newKey(private, alg)
	if err != nil {
		return nil, fmt.Errorf("generate a key pair for %s: %w", alg, err)
	}
	if p, ok := k.public.(*rsa.PublicKey); ok && p.N.BitLen() != rsaBits {
		return nil, fmt.Errorf("generate a key pair for %s: a modulus of %d bits instead of %d", alg, p.N.BitLen(), rsaBits)
	}
	if err := k.prove(); err != nil {
		return nil, fmt.Errorf("the new key pair for %s is dropped: %w", alg, err)
	}
	return k, nil
}

// prove signs and verifies with the published form of the public half.
func (k *Key) prove() error {
	public, err := k.jwk.PublicKey()
	if err != nil {
		return err
	}
	message := []byte("keyturn: does this key sign what its public half verifies?")
	hash := hashOf(k.jwk.Alg)
	var opts crypto.SignerOpts = hash
	digest := message
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	isPSS := k.jwk.Alg[0] == 'P'
	if isPSS {
		opts = pss
	}
	sig, err := k.Sign(nil, digest, opts)
	if err != nil {
		return err
	}
	ok := false
	switch p := public.(type) {
	case *rsa.PublicKey:
		if isPSS {
			ok = rsa.VerifyPSS(p, hash, digest, sig, pss) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(p, hash, digest, sig) == nil
		}
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(p, digest, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(p, digest, sig)
	}
	if !ok {
		return errors.New("its signature does not verify")
	}
	return nil
}
