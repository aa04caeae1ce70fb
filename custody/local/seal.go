package local

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"

	"github.com/keyturn/keyturn/internal/atomicfile"
)

// KeySize is the size of the sealing key: AES-256.
const KeySize = 32

// magic begins every sealed file, so that another format can follow.
const magic = "keyturn sealed 1\n"

// maxFile is more than any file here can hold.
const maxFile = 8 << 20

var errSeal = errors.New("it does not open with this key: it was sealed with another one, or it is damaged")

func newSeal(key []byte) (cipher.AEAD, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("a sealing key of %d bytes; it must have %d", len(key), KeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	// A random nonce goes in front of each text. 2^32 halves under one key
	// would be too many (SP 800-38D §8.3); a key a second takes 136 years.
	return cipher.NewGCMWithRandomNonce(block)
}

// sealed binds a text to what it is: a half that is copied to another issuer's
// or another kid's name does not open.
func sealed(aead cipher.AEAD, text []byte, bound string) []byte {
	return aead.Seal([]byte(magic), nil, text, []byte(bound))
}

func unsealed(aead cipher.AEAD, doc []byte, bound string) ([]byte, error) {
	box, ok := bytes.CutPrefix(doc, []byte(magic))
	if !ok {
		return nil, errors.New("not a sealed file")
	}
	text, err := aead.Open(nil, nil, box, []byte(bound))
	if err != nil {
		return nil, errSeal
	}
	return text, nil
}

const sealFile = "seal"

// checkSeal tells a wrong key before anything is done with it. The seal is
// written before the first half, so halves without one mean that it was lost,
// and a key that opens none of them must not get to work.
func (c *Custody) checkSeal() error {
	doc, err := atomicfile.Read(c.root, sealFile, maxFile)
	switch {
	case err == nil:
		if _, err := unsealed(c.seal, doc, sealFile); err != nil {
			return fmt.Errorf("%s: %w; give the key file that the directory was made with", sealFile, err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	issuers, err := fs.ReadDir(c.root.FS(), "issuers")
	if err != nil {
		return err
	}
	if len(issuers) > 0 {
		return errors.New("the file seal is gone, though issuers are there; restore it from a backup")
	}
	// Crash after this: an empty directory that knows its key.
	return atomicfile.Write(c.root, sealFile, sealed(c.seal, []byte(rand.Text()), sealFile), 0o600)
}

func boundTo(issuer, kid string) string { return "private half\x00" + issuer + "\x00" + kid }
