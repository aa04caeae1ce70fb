package local

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/internal/crashpoint"
	"github.com/keyturn/keyturn/keyring"
)

const (
	keysDir = "keys"
	suffix  = ".sealed"
)

// Create generates a key pair, proves it and deposits its private half. The
// handle is the kid. A half of that kid is never replaced: fs.ErrExist.
func (c *Custody) Create(ctx context.Context, issuer string, alg keyring.Algorithm, rsaBits int) (keyring.JWK, string, error) {
	k, err := half.Generate(c.generate, alg, rsaBits)
	if err != nil {
		return keyring.JWK{}, "", err
	}
	crashpoint.Here("create.generated")
	if err := c.deposit(ctx, issuer, k); err != nil {
		return keyring.JWK{}, "", fmt.Errorf("deposit kid %q of %q: %w", k.JWK().Kid, issuer, err)
	}
	return k.JWK(), k.JWK().Kid, nil
}

func (c *Custody) deposit(ctx context.Context, issuer string, k *half.Key) error {
	text, err := half.Encode(k)
	if err != nil {
		return err
	}
	defer clear(text)
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := c.open(ctx, issuer, keysDir, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	kid := k.JWK().Kid
	// The lock of the directory and mu make this check and the write one step.
	switch _, err := dir.Lstat(kid + suffix); {
	case err == nil:
		return fs.ErrExist
	case !errors.Is(err, fs.ErrNotExist):
		return storeError(err)
	}
	// Crash before the rename: a hidden file that the next Open sweeps. Crash
	// after it: an orphan, which the rotator finds by List.
	return storeError(atomicfile.Write(dir, kid+suffix, sealed(c.seal, text, boundTo(issuer, kid)), 0o600))
}

// Destroy removes a private half and returns nil when it is gone, also when it
// was before. The bytes on the disk are sealed; overwriting them would promise
// what no modern disk keeps.
func (c *Custody) Destroy(ctx context.Context, issuer, handle string) error {
	if err := custody.CheckHandle(handle); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	dir, err := c.open(ctx, issuer, keysDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, err)
	}
	defer dir.Close()
	if err := dir.Remove(handle + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, storeError(err))
	}
	// Also when it was gone: an earlier removal may not be durable yet.
	if err := atomicfile.SyncDir(dir); err != nil {
		return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, storeError(err))
	}
	return nil
}

// List is the kids of the issuer's private halves, sorted.
func (c *Custody) List(ctx context.Context, issuer string) ([]string, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	dir, err := c.open(ctx, issuer, keysDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list halves of %q: %w", issuer, err)
	}
	defer dir.Close()
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		return nil, fmt.Errorf("list halves of %q: %w", issuer, storeError(err))
	}
	var kids []string
	for _, e := range entries {
		if kid, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(kid, ".") {
			kids = append(kids, kid)
		}
	}
	slices.Sort(kids)
	return kids, nil
}

// Signer opens a private half and checks it against the manifest's public one.
// Errors are keyring's: ErrNoKey, ErrMismatch (also of one that does not
// open), ErrUnavailable, ErrDenied.
func (c *Custody) Signer(ctx context.Context, issuer string, k keyring.Key) (crypto.Signer, error) {
	s, err := c.signer(ctx, issuer, k)
	if err != nil {
		return nil, fmt.Errorf("private half of kid %q of %q: %w", k.JWK.Kid, issuer, err)
	}
	return s, nil
}

func (c *Custody) signer(ctx context.Context, issuer string, k keyring.Key) (*half.Key, error) {
	if err := custody.CheckHandle(k.Handle); err != nil {
		return nil, err
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	dir, err := c.open(ctx, issuer, keysDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, keyring.ErrNoKey
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	doc, err := atomicfile.Read(dir, k.Handle+suffix, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, keyring.ErrNoKey
	}
	if err != nil {
		return nil, storeError(err)
	}
	text, err := unsealed(c.seal, doc, boundTo(issuer, k.Handle))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrMismatch, err)
	}
	defer clear(text)
	return half.Parse(text, k.JWK)
}
