package local_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/keyring"
)

// twoHalves is a custody with two halves of issuer main, and the seed of the first.
func twoHalves(t *testing.T) (c *local.Custody, dir string, keys [2]keyring.Key, seed []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "custody")
	c, err := local.Open(local.Config{Dir: dir, Key: testKey(1), Generate: func(a keyring.Algorithm, bits int) (crypto.Signer, error) {
		s, err := half.Random(a, bits)
		if e, ok := s.(interface{ Seed() []byte }); ok && seed == nil {
			seed = e.Seed()
		}
		return s, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for i := range keys {
		jwk, handle, err := c.Create(t.Context(), "main", keyring.EdDSA, 0)
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = custodytest.KeyOf(jwk, handle)
	}
	return c, dir, keys, seed
}

func sealedFile(dir, issuer string, k keyring.Key) string {
	return filepath.Join(dir, "issuers", issuer, "keys", k.Handle+".sealed")
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func write(t *testing.T, path string, doc []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, doc, 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantMismatch(t *testing.T, what string, c *local.Custody, issuer string, k keyring.Key) {
	t.Helper()
	s, err := c.Signer(t.Context(), issuer, k)
	if !errors.Is(err, keyring.ErrMismatch) || s != nil {
		t.Errorf("%s: Signer = %v, %v; want ErrMismatch", what, s, err)
	}
}

func TestNothingInTheClear(t *testing.T) {
	_, dir, keys, seed := twoHalves(t)
	path := sealedFile(dir, "main", keys[0])
	if doc := read(t, path); len(seed) != 32 || bytes.Contains(doc, seed) || bytes.Contains(doc, []byte("PRIVATE")) {
		t.Error("the half stands there in the clear")
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// Whatever happens to a sealed half, it opens whole or not at all.
func TestDamagedHalf(t *testing.T) {
	c, dir, keys, _ := twoHalves(t)
	path := sealedFile(dir, "main", keys[0])
	doc := read(t, path)
	for i := range doc {
		bad := bytes.Clone(doc)
		bad[i] ^= 1
		write(t, path, bad)
		wantMismatch(t, fmt.Sprintf("bit flipped in byte %d", i), c, "main", keys[0])
	}
	for _, n := range []int{0, 5, 17, 20, len(doc) - 1} {
		write(t, path, doc[:n])
		wantMismatch(t, fmt.Sprintf("cut to %d bytes", n), c, "main", keys[0])
	}
	write(t, path, doc)
	if _, err := c.Signer(t.Context(), "main", keys[0]); err != nil {
		t.Errorf("untouched again: %v", err)
	}
}

// A half opens under its own name only.
func TestMovedHalf(t *testing.T) {
	c, dir, keys, _ := twoHalves(t)
	doc := read(t, sealedFile(dir, "main", keys[0]))
	write(t, sealedFile(dir, "main", keys[1]), doc)
	moved := keys[0]
	moved.Handle = keys[1].Handle
	wantMismatch(t, "under another kid", c, "main", moved)
	write(t, sealedFile(dir, "other", keys[0]), doc)
	wantMismatch(t, "at another issuer", c, "other", keys[0])
}
