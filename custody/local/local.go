package local

import (
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/keyring"
)

// Config says where a custody is and what opens it.
type Config struct {
	// Dir is created, with mode 0700, where it is missing. One that others may
	// enter, or that belongs to another user than root and our own, is refused.
	Dir string
	// Key seals the private halves: KeySize bytes, as ReadKeyFile returns them.
	Key []byte
	// Generate is half.Random unless a test says otherwise.
	Generate half.Generator
}

// Format implements fmt.Formatter: no verb prints the key.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

func (c Config) String() string { return "custody " + c.Dir + ", key [redacted]" }

// LogValue implements slog.LogValuer.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON implements json.Marshaler.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// Custody is an open directory. It is safe for concurrent use.
type Custody struct {
	seal     cipher.AEAD
	generate half.Generator
	lock     *os.File // holds the flock until it is closed

	// mu makes a check and the write that follows one step.
	mu   sync.RWMutex
	root *os.Root // nil when closed
}

// Open takes the directory for this process alone. It refuses one that another
// process has open, that others may enter, or that was sealed with another key.
func Open(cfg Config) (*Custody, error) {
	seal, err := newSeal(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("open custody %s: %w", cfg.Dir, err)
	}
	root, err := openDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("open custody %s: %w", cfg.Dir, err)
	}
	lock, err := takeLock(root)
	if err != nil {
		return nil, fmt.Errorf("open custody %s: %w", cfg.Dir, errors.Join(err, root.Close()))
	}
	c := &Custody{seal: seal, generate: cfg.Generate, lock: lock, root: root}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("open custody %s: %w", cfg.Dir, errors.Join(err, c.Close()))
	}
	return c, nil
}

// Close gives the directory back. What is called later says that it is closed.
func (c *Custody) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root == nil {
		return nil
	}
	root := c.root
	c.root = nil
	return errors.Join(root.Close(), c.lock.Close())
}

func openDir(dir string) (*os.Root, error) {
	if dir == "" {
		return nil, errors.New("no directory given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("mode %04o lets others in; run chmod 700 %s", info.Mode().Perm(), dir)
	}
	if err == nil {
		err = atomicfile.CheckOwner(info)
	}
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return root, nil
}

// prepare checks the key, or writes what later ones are checked by, and sweeps
// what a crash left. Only the holder of the lock gets here.
func (c *Custody) prepare() error {
	if err := c.root.Mkdir("issuers", 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := c.checkSeal(); err != nil {
		return err
	}
	return fs.WalkDir(c.root.FS(), "issuers", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		// A write that was cut off before its rename: nobody has heard of it.
		return c.root.Remove(path)
	})
}

// issuerDir opens a directory of an issuer. Without create a missing one is
// fs.ErrNotExist. The caller holds mu and closes what it gets.
func (c *Custody) issuerDir(issuer, sub string, create bool) (*os.Root, error) {
	if err := custody.CheckIssuer(issuer); err != nil {
		return nil, err
	}
	if c.root == nil {
		return nil, fmt.Errorf("%w: the custody is closed", keyring.ErrUnavailable)
	}
	path := filepath.Join("issuers", issuer, sub)
	dir, err := c.root.OpenRoot(path)
	if !create || !errors.Is(err, fs.ErrNotExist) {
		return dir, storeError(err)
	}
	if err := c.root.MkdirAll(path, 0o700); err != nil {
		return nil, storeError(err)
	}
	// The new names must survive a power cut before anything in them counts.
	for p := filepath.Dir(path); ; p = filepath.Dir(p) {
		parent, err := c.root.OpenRoot(p)
		if err != nil {
			return nil, storeError(err)
		}
		if err := errors.Join(atomicfile.SyncDir(parent), parent.Close()); err != nil {
			return nil, storeError(err)
		}
		if p == "." {
			break
		}
	}
	dir, err = c.root.OpenRoot(path)
	return dir, storeError(err)
}

// storeError says what a failed file operation means to those who know only
// keyring's errors. A missing file is the caller's to judge.
func storeError(err error) error {
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return err
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", keyring.ErrDenied, err)
	}
	return fmt.Errorf("%w: %w", keyring.ErrUnavailable, err)
}
