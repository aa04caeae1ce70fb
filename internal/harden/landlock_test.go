package harden

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// rooms are the folders of a confined child, and what its rules say of them.
func rooms(t *testing.T, dir string) []Rule {
	t.Helper()
	rules := []Rule{
		{filepath.Join(dir, "read"), Read}, {filepath.Join(dir, "write"), Write}, {filepath.Join(dir, "tree"), Tree},
		{filepath.Join(dir, "sockets"), Sockets}, {filepath.Join(dir, "outer"), Vacate}, {filepath.Join(dir, "not there"), Write},
	}
	for _, name := range []string{"read", "write", "tree", "sockets", "outer/inner", "closed/folder"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name, "file"), []byte("x"), 0o644))
	}
	must(t, os.Remove(filepath.Join(dir, "outer/inner/file")))
	must(t, os.Symlink(filepath.Join(dir, "closed/folder"), filepath.Join(dir, "read/link")))
	must(t, os.WriteFile(filepath.Join(dir, "one file"), []byte("x"), 0o644))
	return append(rules, Rule{filepath.Join(dir, "one file"), Tree})
}

// TestConfine: each access does what it is for and no more, on every thread of
// the process.
func TestConfine(t *testing.T) {
	inChild(t, nil, func(t *testing.T, dir string) {
		ours, theirs := listener(t), listener(t)
		rules := rooms(t, dir)
		open, err := os.OpenFile(filepath.Join(dir, "read/file"), os.O_RDWR, 0)
		must(t, err)
		c, err := Confine(rules, []uint16{port(ours)})
		must(t, err)
		if c.ABI() < MinABI {
			t.Errorf("ABI %d", c.ABI())
		}
		if _, err := open.WriteString("it was open before"); err != nil {
			t.Error(err)
		}
		at := func(name string) string { return filepath.Join(dir, name) }
		acts := map[string]struct {
			do      func() error
			allowed bool
		}{
			"reading":                       {func() error { return readFileAt(at("read/file")) }, true},
			"listing":                       {func() error { _, err := os.ReadDir(at("read")); return err }, true},
			"writing where reading is":      {func() error { return os.WriteFile(at("read/file"), nil, 0o600) }, false},
			"making where reading is":       {func() error { return os.WriteFile(at("read/new"), nil, 0o600) }, false},
			"removing where reading is":     {func() error { return os.Remove(at("read/file")) }, false},
			"a link that leads out":         {func() error { return readFileAt(at("read/link/file")) }, false},
			"replacing":                     {func() error { return replace(at("write/file")) }, true},
			"truncating":                    {func() error { return os.Truncate(at("write/file"), 0) }, true},
			"a folder where files are":      {func() error { return os.Mkdir(at("write/folder"), 0o700) }, false},
			"a socket where files are":      {func() error { return unixListen(at("write/sock")) }, false},
			"a link where files are":        {func() error { return os.Symlink("x", at("write/link")) }, false},
			"a tree":                        {func() error { return errors.Join(os.MkdirAll(at("tree/a/b"), 0o700), os.RemoveAll(at("tree/a"))) }, true},
			"a socket":                      {func() error { return unixListen(at("sockets/sock")) }, true},
			"a folder where sockets are":    {func() error { return os.Mkdir(at("sockets/folder"), 0o700) }, false},
			"vacating":                      {func() error { return os.Remove(at("outer/inner")) }, true},
			"reading what is to be vacated": {func() error { _, err := os.ReadDir(at("outer")); return err }, false},
			"the one file":                  {func() error { return os.WriteFile(at("one file"), []byte("y"), 0o600) }, true},
			"beside the one file":           {func() error { return os.WriteFile(at("two files"), []byte("y"), 0o600) }, false},
			"moving out":                    {func() error { return os.Rename(at("write/file"), at("tree/file")) }, false},
			"reading elsewhere":             {func() error { return readFileAt(at("closed/folder/file")) }, false},
			"listing elsewhere":             {func() error { _, err := os.ReadDir(at("closed")); return err }, false},
			"truncating elsewhere":          {func() error { return os.Truncate(at("closed/folder/file"), 0) }, false},
			"writing to /tmp":               {func() error { return os.WriteFile("/tmp/keyturn-harden-test", nil, 0o600) }, false},
			"the own memory":                {func() error { return readFileAt("/proc/self/mem") }, false},
			"the shadow":                    {func() error { return readFileAt("/etc/shadow") }, false},
			"a program":                     {func() error { return exec.Command("/bin/true").Run() }, false},
			"our port":                      {func() error { return dial(ours) }, true},
			"another port":                  {func() error { return dial(theirs) }, false},
			"binding a port":                {bind, false},
			"a signal to the parent":        {func() error { return syscall.Kill(os.Getppid(), 0) }, c.ABI() < 6},
			"a signal to itself":            {func() error { return syscall.Kill(os.Getpid(), 0) }, true},
		}
		for name, act := range acts {
			err := act.do()
			refused := errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EXDEV)
			if act.allowed && err != nil || !act.allowed && !refused {
				t.Errorf("%s: allowed %v, got %v", name, act.allowed, err)
			}
		}
		everyThread(t, func() error { return readFileAt(at("closed/folder/file")) })
	})
}

// everyThread wants a refusal in threads that were there before, and in new ones.
func everyThread(t *testing.T, do func() error) {
	var wg sync.WaitGroup
	var all sync.WaitGroup
	all.Add(20)
	for range 20 {
		wg.Go(func() {
			runtime.LockOSThread()
			all.Done()
			all.Wait() // so that they are twenty threads
			if err := do(); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("in thread %d: %v", unix.Gettid(), err)
			}
		})
	}
	wg.Wait()
}

func readFileAt(path string) error {
	f, err := os.Open(path)
	if err == nil {
		err = f.Close()
	}
	return err
}

func replace(path string) error {
	return errors.Join(os.WriteFile(path+".tmp", []byte("new"), 0o600), os.Rename(path+".tmp", path))
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func port(l net.Listener) uint16 { return uint16(l.Addr().(*net.TCPAddr).Port) }

func dial(l net.Listener) error {
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(int(port(l))))
	if err == nil {
		err = conn.Close()
	}
	return err
}

// bind takes a TCP socket of the plain kind: net.Listen makes multipath ones,
// which Landlock does not see.
func bind() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

func unixListen(path string) error {
	l, err := net.Listen("unix", path)
	if err == nil {
		err = l.Close()
	}
	return err
}

// TestLacks agrees with the kernel: what it says is lacking is refused.
func TestLacks(t *testing.T) {
	inChild(t, nil, func(t *testing.T, dir string) {
		rules := append(rooms(t, dir), Rule{filepath.Join(dir, "outer"), Read})
		must(t, os.MkdirAll(filepath.Join(dir, "parent/gone"), 0o755))
		must(t, os.MkdirAll(filepath.Join(dir, "alone/gone"), 0o755))
		// What replaces these two later was made before, where nothing is confined.
		must(t, os.MkdirAll(filepath.Join(dir, "alone/next"), 0o755))
		rules = append(rules, Rule{filepath.Join(dir, "parent"), Tree}, Rule{filepath.Join(dir, "alone/gone"), Write})
		c, err := Confine(rules, nil)
		must(t, err)
		for _, tc := range []struct {
			path   string
			access Access
			lacks  bool
		}{
			{"read", Read, false}, {"read/file", Read, false}, {"read/new", Read, false}, {"read", Write, true}, {"read/link", Read, true},
			{"write", Write, false}, {"write/file", Write, false}, {"write", Tree, true}, {"write/a/b/c", Write, false},
			{"tree", Tree, false}, {"tree", Sockets, true}, {"sockets", Sockets, false}, {"outer/inner", Read, false}, {"outer", Tree, true},
			{"one file", Write, false}, {"closed", Read, true}, {"not there", Write, true}, {"", Read, true},
			{"parent/gone", Write, false}, {"alone/gone", Write, false}, {"alone/next", Write, true},
		} {
			if got := c.Lacks(filepath.Join(dir, tc.path), tc.access); got != tc.lacks {
				t.Errorf("Lacks(%q, %d) = %v", tc.path, tc.access, got)
			}
		}
		parent := filepath.Join(dir, "parent/gone")
		must(t, os.Remove(parent))
		must(t, os.Mkdir(parent, 0o755))
		if c.Lacks(parent, Write) {
			t.Error("a folder that was made anew is lacking though its parent is not")
		}
		if err := os.WriteFile(filepath.Join(parent, "file"), nil, 0o600); err != nil {
			t.Errorf("the kernel says otherwise: %v", err)
		}
		if !(&Confined{}).Lacks("/", Read) || (*Confined)(nil).Lacks("/", Read) || (*Confined)(nil).ABI() != 0 {
			t.Error("none confined lacks something, or one without rules nothing")
		}
	})
}
