package rotator

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

// maxMark is more than any store takes for a manifest, in bytes.
const maxMark = 8 << 20

// mark is the highest generation that a replica has seen, with the lineage and
// all public facts: the last manifest itself, in a file of the state
// directory. It holds no secret, but consumers are served from it while the
// store is away, so nobody else may write it.
type mark struct {
	path string // "" keeps the mark in memory only
	// put replaces the file. The simulator has its own disks.
	put      func(path string, doc []byte) error
	snapshot *keyring.Snapshot
	// unkept is why the file does not hold the snapshot; nil if it does.
	unkept error
	// differed is the generation under which the file held something else than
	// the store at the start; 0 if it did not. It is never forgotten: somebody
	// can write where nobody should.
	differed uint64
}

// openMark reads the mark of an issuer; a missing one is no mark yet. One that
// cannot be read is an error: without it a replica could go back in time. So
// is one that somebody else could have written.
func openMark(dir, issuer string) (mark, error) {
	if dir == "" {
		return mark{}, nil
	}
	name := issuer + ".manifest.json"
	m := mark{path: filepath.Join(dir, name), put: putMark}
	doc, err := readMark(dir, name)
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

func readMark(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err == nil {
		err = atomicfile.CheckWriters(info)
	}
	if err != nil {
		return nil, fmt.Errorf("state_dir %s: %w", dir, err)
	}
	// What crashed writers left. Where it cannot be removed the mark cannot be
	// kept either, and an alarm says that.
	_ = atomicfile.Sweep(root, name)
	doc, err := atomicfile.Read(root, name, maxMark)
	if err != nil {
		return nil, err
	}
	// The name still means what was read: nobody else may write the directory.
	info, err = root.Lstat(name)
	if err == nil {
		err = atomicfile.CheckWriters(info)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w, after a look at who wrote it", filepath.Join(dir, name), err)
	}
	return doc, nil
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

// isForged reports that the mark shows other contents than the store under
// the same generation: somebody changed one of them, and the store is the authority.
func (m *mark) isForged(stored *keyring.Snapshot) bool {
	return m.snapshot != nil && m.snapshot.Generation == stored.Generation && !sameManifest(m.snapshot, stored)
}

func sameManifest(a, b *keyring.Snapshot) bool {
	x, errA := keyring.Encode(a)
	y, errB := keyring.Encode(b)
	if errA != nil || errB != nil { // of a newer schema: not ours to encode
		return reflect.DeepEqual(a, b)
	}
	return bytes.Equal(x, y)
}

// keep raises the mark. The mark in memory is raised even where the file
// cannot be written; then an alarm stands until it is.
func (m *mark) keep(s *keyring.Snapshot) error {
	m.snapshot = s
	m.unkept = m.write()
	return m.unkept
}

func (m *mark) write() error {
	if m.path == "" {
		return nil
	}
	doc, err := keyring.Encode(m.snapshot)
	if errors.Is(err, keyring.ErrSchema) {
		return nil // a newer schema is not ours to write, not even here
	}
	if err != nil {
		return err
	}
	return m.put(m.path, doc)
}

func putMark(path string, doc []byte) error { return atomicfile.WriteFile(path, doc, 0o600) }

func (m *mark) alarms(issuer string, now time.Time) []keyring.Alarm {
	var out []keyring.Alarm
	if m.unkept != nil {
		out = append(out, keyring.Alarm{Code: "mark_not_kept", Issuer: issuer, Since: now,
			Message: fmt.Sprintf("the high-water mark is not on disk, and after a restart this replica would not notice an older manifest: %v; make room in state_dir, or mend its permissions", m.unkept)})
	}
	if m.differed != 0 {
		out = append(out, keyring.Alarm{Code: "mark_differs", Issuer: issuer, Since: now,
			Message: fmt.Sprintf("high-water mark %s held other contents than the store under generation %d; the store counts, and the mark was replaced: find out who changed it, then restart", m.path, m.differed)})
	}
	return out
}
