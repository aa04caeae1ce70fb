package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

const manifestFile = "manifest.json"

// Load reads an issuer's manifest. The version is the generation. Errors are
// keyring's: ErrNoManifest; ErrSchema, with the snapshot where it could be
// read; ErrCorrupt, with a version by which it can be replaced; ErrUnavailable;
// ErrDenied.
func (c *Custody) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	dir, err := c.open(ctx, issuer, "", false)
	if errors.Is(err, fs.ErrNotExist) {
		err = keyring.ErrNoManifest
	}
	if err != nil {
		return nil, 0, fmt.Errorf("load manifest of %q: %w", issuer, err)
	}
	defer dir.Close()
	doc, version, err := readManifest(dir)
	if err == nil && version == 0 {
		err = keyring.ErrNoManifest
	}
	if err != nil {
		return nil, 0, fmt.Errorf("load manifest of %q: %w", issuer, err)
	}
	s, err := keyring.Decode(doc)
	if s != nil && s.Config.Name != issuer {
		s, err = nil, fmt.Errorf("it is the manifest of issuer %q: %w", s.Config.Name, keyring.ErrCorrupt)
	}
	if err != nil {
		return s, version, fmt.Errorf("load manifest of %q: %w", issuer, err)
	}
	return s, version, nil
}

// Save replaces an issuer's manifest if its version is still the one given, 0
// for none; else ErrConflict. It returns the new version, next's generation,
// which must be larger. After another error the new one may be stored or not,
// whole in either case.
func (c *Custody) Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.save(ctx, issuer, next, version)
	if err != nil {
		return 0, fmt.Errorf("save manifest of %q: %w", issuer, err)
	}
	return v, nil
}

func (c *Custody) save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	doc, err := keyring.Encode(next)
	if err != nil {
		return 0, err
	}
	if next.Config.Name != issuer || next.WriteID == "" {
		return 0, fmt.Errorf("the manifest is of issuer %q, write_id %q", next.Config.Name, next.WriteID)
	}
	if next.Generation == 0 || next.Generation > maxGeneration {
		return 0, fmt.Errorf("generation %d is out of range", next.Generation)
	}
	dir, err := c.open(ctx, issuer, "", true)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	old, stored, err := readManifest(dir)
	switch {
	case err != nil:
		return 0, err
	case stored != version:
		return 0, keyring.ErrConflict
	case old != nil && stored <= maxGeneration && int(next.Generation) <= stored:
		return 0, fmt.Errorf("generation %d does not follow %d", next.Generation, stored)
	}
	// Crash before this: the old manifest. Crash after it: the new one.
	if err := atomicfile.Write(dir, manifestFile, doc, 0o600); err != nil {
		return 0, storeError(err)
	}
	return int(next.Generation), nil
}

func (c *Custody) open(ctx context.Context, issuer, sub string, create bool) (*os.Root, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return c.issuerDir(issuer, sub, create)
}

// maxGeneration leaves room above for the versions of documents that have none.
const maxGeneration = math.MaxInt >> 1

// readManifest returns the document and its version: the generation, or, of a
// document that shows none, a number made of its bytes, so that what is
// corrupt can be replaced by who has seen it. Nothing there is version 0.
func readManifest(dir *os.Root) ([]byte, int, error) {
	doc, err := atomicfile.Read(dir, manifestFile, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, storeError(err)
	}
	var head struct {
		Generation uint64 `json:"generation"`
	}
	if err := json.Unmarshal(doc, &head); err == nil && head.Generation > 0 && head.Generation <= maxGeneration {
		return doc, int(head.Generation), nil
	}
	sum := sha256.Sum256(doc)
	return doc, maxGeneration + 1 + int(binary.BigEndian.Uint64(sum[:])&maxGeneration), nil
}
