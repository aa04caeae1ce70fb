package atomicfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/internal/atomicfile"
	"github.com/keyturn/keyturn/internal/atomicfile/tinyfs"
	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// wantDir fails unless the directory holds exactly these names.
func wantDir(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

func TestWriteReplaces(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, tc := range []struct {
		data string
		mode fs.FileMode
	}{{"one", 0o644}, {"", 0o600}, {"three", 0o640}} {
		if err := atomicfile.WriteFile(path, []byte(tc.data), tc.mode); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, tc.data)
		if info, err := os.Stat(path); err != nil || info.Mode() != tc.mode {
			t.Errorf("mode %v (%v), want %v", info.Mode(), err, tc.mode)
		}
		wantDir(t, dir, "f")
	}
}

// A hard link elsewhere must not change with the file.
func TestWriteDoesNotWriteThrough(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "f"), filepath.Join(dir, "g")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(path, other); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFile(path, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantFile(t, other, "old")
}

func TestOnlyRegularFiles(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"link":          func(p string) error { return os.Symlink("elsewhere", p) },
		"dangling link": func(p string) error { return os.Symlink("missing/at/all", p) },
		"directory":     func(p string) error { return os.Mkdir(p, 0o700) },
		"FIFO":          func(p string) error { return unix.Mkfifo(p, 0o600) },
		"socket": func(p string) error {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			return errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: p}), unix.Close(fd))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "af") // short: a socket path holds 107 bytes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.WriteFile(filepath.Join(dir, "elsewhere"), []byte("untouched"), 0o600); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "f")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := atomicfile.WriteFile(path, []byte("x"), 0o600); !errors.Is(err, atomicfile.ErrNotRegular) {
				t.Errorf("Write = %v, want ErrNotRegular", err)
			}
			if _, err := atomicfile.Read(open(t, dir), "f", 10); !errors.Is(err, atomicfile.ErrNotRegular) {
				t.Errorf("Read = %v, want ErrNotRegular", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("the target was replaced (%v)", err)
			}
			wantFile(t, filepath.Join(dir, "elsewhere"), "untouched")
			wantDir(t, dir, "elsewhere", "f")
		})
	}
}

func TestNames(t *testing.T) {
	root := open(t, t.TempDir())
	for _, name := range []string{"", ".", "..", "a/b", "/a", "../a"} {
		if err := atomicfile.Write(root, name, nil, 0o600); err == nil {
			t.Errorf("Write took the name %q", name)
		}
	}
	if err := atomicfile.WriteFile(filepath.Join(t.TempDir(), "missing", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("WriteFile into a directory that is not there = %v", err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	root := open(t, dir)
	if _, err := atomicfile.Read(root, "f", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing = %v", err)
	}
	for data, want := range map[string]error{"": nil, "four": nil, "fives": atomicfile.ErrTooLarge} {
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := atomicfile.Read(root, "f", 4)
		if !errors.Is(err, want) || (want == nil && string(got) != data) {
			t.Errorf("Read of %q = %q, %v", data, got, err)
		}
	}
}

func TestSweepTakesOnlyTempFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".f.ABCDEFGHIJKLM.tmp", ".f.ABCDEFGHIJKL2.tmp", ".f.short.tmp", ".g.ABCDEFGHIJKLM.tmp", ".f.g.ABCDEFGHIJKLM.tmp", "f", ".f.lock"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := atomicfile.Sweep(open(t, dir), "f"); err != nil {
		t.Fatal(err)
	}
	wantDir(t, dir, ".f.g.ABCDEFGHIJKLM.tmp", ".f.lock", ".f.short.tmp", ".g.ABCDEFGHIJKLM.tmp", "f")
}

// Readers see one of the versions, whole, while several writers race.
func TestReadersSeeWholeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	version := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 1000+i*5000) }
	if err := atomicfile.WriteFile(path, version(0), 0o644); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for reads := 0; ; reads++ {
				got, err := os.ReadFile(path)
				if err != nil || len(got) == 0 || !bytes.Equal(got, version(int(got[0]-'a'))) {
					t.Errorf("read %d: %d bytes, torn or missing (%v)", reads, len(got), err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for w := range 3 {
		writers.Go(func() {
			for i := range 40 {
				if err := atomicfile.WriteFile(path, version((w+i)%5), 0o644); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	wantDir(t, dir, "f")
}

func TestFullAndReadOnly(t *testing.T) {
	tinyfs.Run(t, 256<<10, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "f")
		if err := atomicfile.WriteFile(path, []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		free := tinyfs.Fill(t, dir)
		if err := atomicfile.WriteFile(path, make([]byte, 20_000), 0o644); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("on a full disk: %v", err)
		}
		wantFile(t, path, "old")
		wantDir(t, dir, "f", "filler")
		free()

		tinyfs.ReadOnly(t, dir, true)
		if err := atomicfile.WriteFile(path, []byte("new"), 0o644); !errors.Is(err, syscall.EROFS) {
			t.Errorf("on a read-only disk: %v", err)
		}
		wantFile(t, path, "old")
		wantDir(t, dir, "f")
		tinyfs.ReadOnly(t, dir, false)

		if err := atomicfile.WriteFile(path, []byte("new"), 0o644); err != nil {
			t.Errorf("on a mended disk: %v", err)
		}
		wantFile(t, path, "new")
	})
}

// TestWriteTellsTheFolder: who may not write there, or where nobody can, hears
// which folder it is, and nothing of a temporary name.
func TestWriteTellsTheFolder(t *testing.T) {
	dir := t.TempDir()
	root := open(t, dir)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	err := atomicfile.Write(root, "token", []byte("x"), 0o600)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make a file in "+dir+": ") || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("in a folder that has gone: %v", err)
	}
}
