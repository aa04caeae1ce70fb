package unixsock

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCloseTakesTheSocketAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := mustListen(t, Config{Path: path, GID: -1})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v, want it gone", err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
}

func TestCloseLeavesWhatIsNotOurs(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, path string){
		"another socket": deadSocket,
		"a file": func(t *testing.T, path string) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l := mustListen(t, Config{Path: path, GID: -1})
			if err := os.Rename(path, path+".kept"); err != nil { // keeps the inode number taken
				t.Fatal(err)
			}
			replace(t, path)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("Close took away what was not ours: %v", err)
			}
		})
	}
}

func TestCloseWhenTheSocketIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := mustListen(t, Config{Path: path, GID: -1})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}
