package half

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/keyring"
)

const pemType = "PRIVATE KEY"

// Encode is the private half in PKCS#8 PEM, to be deposited and then cleared.
func Encode(k *Key) ([]byte, error) {
	der, err := k.pkcs8()
	if err != nil {
		return nil, fmt.Errorf("encode kid %q: %w", k.jwk.Kid, err)
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// Parse reads what Encode wrote and checks it against the public half that the
// manifest names. keyring.ErrMismatch covers whatever makes it useless: another
// key, another algorithm, unreadable. No error repeats a byte of doc.
func Parse(doc []byte, want keyring.JWK) (*Key, error) {
	k, err := parse(doc, want.Alg)
	if err != nil {
		return nil, fmt.Errorf("kid %q: %w: %w", want.Kid, keyring.ErrMismatch, err)
	}
	if k.jwk != want {
		return nil, fmt.Errorf("kid %q: the deposited half is that of kid %q: %w", want.Kid, k.jwk.Kid, keyring.ErrMismatch)
	}
	return k, nil
}

func parse(doc []byte, alg keyring.Algorithm) (*Key, error) {
	block, rest := pem.Decode(doc)
	if !bytes.HasPrefix(doc, []byte("-----BEGIN ")) || block == nil || block.Type != pemType || len(block.Headers) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one PEM block of type " + pemType)
	}
	defer clear(block.Bytes)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("not a private key in PKCS#8")
	}
	return newKey(private, alg)
}
