package local

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/keyturn/keyturn/internal/atomicfile"
)

// ReadKeyFile reads a sealing key: 32 bytes as they are, or in base64 (as
// CreateKeyFile and `openssl rand -base64 32` write them). A file that others
// may read, or that belongs to another user than root and our own, is refused. Links are followed: that is how a systemd credential or
// a Kubernetes secret is given.
func ReadKeyFile(path string) ([]byte, error) {
	// Not to hang on a FIFO: its open would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if err := checkKeyFile(info); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	doc, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	key, ok := parseKey(doc)
	if !ok {
		return nil, fmt.Errorf("key file %s: it must hold %d bytes, raw or in base64; make one with: openssl rand -base64 %d", path, KeySize, KeySize)
	}
	return key, nil
}

func checkKeyFile(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("it is not a regular file but %s", info.Mode().Type())
	}
	open := info.Mode().Perm() & 0o077
	// Of a systemd credential with an access list the mode shows the list's
	// mask as r for the group: root's, who reads everything anyway.
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid == 0 && stat.Gid == 0 {
		open &^= 0o040
	}
	if open != 0 {
		return fmt.Errorf("mode %04o lets others read or change it; run chmod 600 on it", info.Mode().Perm())
	}
	return atomicfile.CheckOwner(info)
}

func parseKey(doc []byte) ([]byte, bool) {
	if len(doc) == KeySize {
		return doc, true
	}
	key, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSpace(doc)))
	return key, err == nil && len(key) == KeySize
}

// CreateKeyFile writes a new random key, in base64, mode 0600, and never over
// a file that is there: fs.ErrExist.
func CreateKeyFile(path string) (err error) {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never errs: crypto/rand ends the process instead
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		// A file that holds no key would stand in the way of the next try.
		return fmt.Errorf("create key file: %w", errors.Join(err, os.Remove(path)))
	}
	// Halves will be sealed with it: it must survive a power cut as they do.
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	defer dir.Close()
	if err := atomicfile.SyncDir(dir); err != nil {
		return fmt.Errorf("create key file: %w", err)
	}
	return nil
}
