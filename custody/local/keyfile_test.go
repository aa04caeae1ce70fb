package local_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/custody/local"
)

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "seal.key")
	if err := local.CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	key, err := local.ReadKeyFile(path)
	if err != nil || len(key) != local.KeySize {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := local.CreateKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second CreateKeyFile: %v, want fs.ErrExist", err)
	}
	if again, err := local.ReadKeyFile(path); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key changed: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if again, err := local.ReadKeyFile(link); err != nil || !bytes.Equal(again, key) {
		t.Errorf("through a link: %v", err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{fifo, dir, filepath.Join(dir, "missing")} {
		if _, err := local.ReadKeyFile(bad); err == nil {
			t.Errorf("%s was read", bad)
		}
	}
}

func TestKeyFileContents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	const text = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
	for _, tc := range []struct {
		doc  string
		mode fs.FileMode
		uid  int
		want string // "" is fine
	}{
		{string(testKey(1)), 0o600, 0, ""},
		{string(testKey(1)), 0o400, 0, ""},
		{text, 0o600, 0, ""},
		{text + "\n", 0o600, 0, ""},
		{text, 0o440, 0, ""}, // a systemd credential with an access list: root:root
		{text, 0o440, 1234, "chmod 600"},
		{text, 0o600, 1234, "run chown"},
		{text, 0o460, 0, "chmod 600"},
		{text, 0o604, 0, "chmod 600"},
		{text, 0o620, 0, "chmod 600"},
		{"", 0o600, 0, "openssl"},
		{text[:40], 0o600, 0, "openssl"},
		{text + text, 0o600, 0, "openssl"},
		{string(testKey(1)[:31]), 0o600, 0, "openssl"},
		{string(testKey(1)) + "x", 0o600, 0, "openssl"},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(tc.doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tc.mode); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if err := os.Chown(path, tc.uid, tc.uid); err != nil {
				t.Fatal(err)
			}
		} else if tc.mode == 0o440 && tc.want == "" {
			tc.want = "chmod 600" // it is not root's here
		} else if tc.want == "run chown" {
			tc.want = "" // it is ours here
		}
		key, err := local.ReadKeyFile(path)
		switch {
		case tc.want == "" && (err != nil || !bytes.Equal(key, testKey(1))):
			t.Errorf("%q %04o: %v", tc.doc, tc.mode, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%q %04o: %v, want %q", tc.doc, tc.mode, err, tc.want)
		case err != nil && len(tc.doc) > 30 && strings.Contains(err.Error(), tc.doc[:30]):
			t.Errorf("the error repeats the key: %v", err)
		}
	}
}
