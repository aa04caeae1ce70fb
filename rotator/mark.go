package rotator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

// mark is the highest generation that a replica has seen, with the lineage and
// all public facts: the last manifest itself, in a file of the state
// directory. It holds no secret.
type mark struct {
	path     string // "" keeps the mark in memory only
	snapshot *keyring.Snapshot
}

// openMark reads the mark of an issuer; a missing one is no mark yet. One that
// cannot be read is an error: without it a replica could go back in time.
func openMark(dir, issuer string) (mark, error) {
	if dir == "" {
		return mark{}, nil
	}
	m := mark{path: filepath.Join(dir, issuer+".manifest.json")}
	doc, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return mark{}, fmt.Errorf("read high-water mark: %w", err)
	}
	s, err := keyring.Decode(doc)
	if s == nil {
		return mark{}, fmt.Errorf("high-water mark %s: %w; remove it only if this replica has never acted, or the manifest in the store is known to be the newest", m.path, err)
	}
	m.snapshot = s
	return m, nil
}

// check refuses a snapshot that would take the replica back in time.
func (m *mark) check(s *keyring.Snapshot) error {
	switch seen := m.snapshot; {
	case seen == nil:
		return nil
	case seen.Lineage != s.Lineage:
		return fmt.Errorf("%w: its lineage is %s, not %s: another manifest was put in its place; restore the right one", errBehind, s.Lineage, seen.Lineage)
	case s.Generation == seen.Generation && s.WriteID != seen.WriteID:
		return fmt.Errorf("%w: generation %d was written twice: the store was restored from an older copy and written since; nothing is written until the right manifest is back", errBehind, s.Generation)
	case s.Generation < seen.Generation:
		return fmt.Errorf("%w: generation %d, and %d has been seen: the store was restored from an older copy; nothing is written until the newer manifest is back", errBehind, s.Generation, seen.Generation)
	}
	return nil
}

// keep raises the mark. The mark in memory is raised even where the file
// cannot be written.
func (m *mark) keep(s *keyring.Snapshot) error {
	m.snapshot = s
	if m.path == "" {
		return nil
	}
	doc, err := keyring.Encode(s)
	if errors.Is(err, keyring.ErrSchema) {
		return nil // a newer schema is not ours to write, not even here
	}
	if err != nil {
		return err
	}
	return atomicfile.WriteFile(m.path, doc, 0o600)
}
