package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

const (
	auditDir    = "audit"
	headsSuffix = ".json"
)

// LoadHeads reads a replica's audit heads, nil where there are none. The
// version is made of the document's bytes.
func (c *Custody) LoadHeads(ctx context.Context, r custody.Replica) ([]byte, int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	doc, version, err := c.loadHeads(ctx, r)
	if err != nil {
		return nil, 0, fmt.Errorf("load audit heads of replica %q of %q: %w", r.Name, r.Issuer, err)
	}
	return doc, version, nil
}

func (c *Custody) loadHeads(ctx context.Context, r custody.Replica) ([]byte, int, error) {
	if err := r.Check(); err != nil {
		return nil, 0, err
	}
	dir, err := c.open(ctx, r.Issuer, auditDir, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer dir.Close()
	return readHeads(dir, r.Name)
}

func readHeads(dir *os.Root, replica string) ([]byte, int, error) {
	doc, err := atomicfile.Read(dir, replica+headsSuffix, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, storeError(err)
	}
	sum := sha256.Sum256(doc)
	return doc, 1 + int(binary.BigEndian.Uint64(sum[:])&(math.MaxInt>>1)), nil
}

// SaveHeads replaces a replica's audit heads if their version is still the one
// given, 0 for none; else ErrConflict.
func (c *Custody) SaveHeads(ctx context.Context, r custody.Replica, doc []byte, version int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.saveHeads(ctx, r, doc, version); err != nil {
		return fmt.Errorf("save audit heads of replica %q of %q: %w", r.Name, r.Issuer, err)
	}
	return nil
}

func (c *Custody) saveHeads(ctx context.Context, r custody.Replica, doc []byte, version int) error {
	_, stored, err := c.loadHeads(ctx, r)
	switch {
	case err != nil:
		return err
	case stored != version:
		return keyring.ErrConflict
	}
	dir, err := c.open(ctx, r.Issuer, auditDir, true)
	if err != nil {
		return err
	}
	defer dir.Close()
	return storeError(atomicfile.Write(dir, r.Name+headsSuffix, doc, 0o600))
}

// ReadHeads reads the audit heads that a custody's directory holds, nil where
// there are none, also while a daemon has it open: they are no secret, and
// replaced as a whole.
func ReadHeads(dir string, r custody.Replica) ([]byte, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(dir, "issuers", r.Issuer, auditDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read audit heads: %w", err)
	}
	defer root.Close()
	doc, _, err := readHeads(root, r.Name)
	if err != nil {
		return nil, fmt.Errorf("read audit heads: %w", err)
	}
	return doc, nil
}
