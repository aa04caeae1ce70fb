package unixsock

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// deadSocket leaves a socket file that nobody listens on, as a killed daemon does.
func deadSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustListen(t *testing.T, cfg Config) *Listener {
	t.Helper()
	l, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestListenSetsModeAndGroupWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		t.Run("", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sign.sock")
			old := syscall.Umask(umask) // tests of this package do not run in parallel
			l, err := Listen(Config{Path: path, Mode: 0o660, GID: os.Getegid()})
			if now := syscall.Umask(old); now != umask {
				t.Errorf("Listen left the umask %#o, want %#o", now, umask)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := info.Mode(), fs.ModeSocket|0o660; got != want {
				t.Errorf("umask %#o: mode %v, want %v", umask, got, want)
			}
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil || len(entries) != 1 {
				t.Errorf("directory holds %v, %v; want the socket alone", entries, err)
			}
		})
	}
}

// TestBindIsClosed looks at the instant before the mode is set: with umask 0
// an ordinary bind would leave the socket open to everybody.
func TestBindIsClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sign.sock")
	old := syscall.Umask(0)
	l, err := bind(path)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %#o right after bind, want 0600", got)
	}
}

func TestListenDefaultsToOwnerOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	mustListen(t, Config{Path: path, GID: -1})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %#o, want 0600", info.Mode().Perm())
	}
}

func TestListenGivesTheGroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives a file to another group: run it as root")
	}
	path := filepath.Join(t.TempDir(), "sign.sock")
	mustListen(t, Config{Path: path, Mode: 0o660, GID: 4567})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Gid != 4567 || int(st.Uid) != os.Geteuid() {
		t.Errorf("owner %d:%d, want %d:4567", st.Uid, st.Gid, os.Geteuid())
	}
}

func TestListenRefusesConfig(t *testing.T) {
	dir := t.TempDir()
	long := "/tmp/" + strings.Repeat("x", MaxPath-len("/tmp/")+1)
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"empty path":      {Config{GID: -1}, "path is empty"},
		"abstract":        {Config{Path: "@keyturn", GID: -1}, "abstract socket"},
		"NUL":             {Config{Path: dir + "/a\x00b", GID: -1}, "abstract socket"},
		"directory path":  {Config{Path: dir + "/", GID: -1}, "names a directory"},
		"dot":             {Config{Path: dir + "/.", GID: -1}, "names a directory"},
		"root":            {Config{Path: "/", GID: -1}, "names a directory"},
		"too long":        {Config{Path: long, GID: -1}, "108 bytes and the system allows 107"},
		"execute bits":    {Config{Path: dir + "/s", Mode: 0o777, GID: -1}, "read and write bits only"},
		"setuid bit":      {Config{Path: dir + "/s", Mode: fs.ModeSetuid | 0o600, GID: -1}, "read and write bits only"},
		"negative gid":    {Config{Path: dir + "/s", GID: -2}, "use -1"},
		"no directory":    {Config{Path: dir + "/none/s", GID: -1}, "does not exist; create it"},
		"file, not a dir": {Config{Path: "/proc/self/status/s", GID: -1}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := Listen(tc.cfg)
			if err == nil {
				_ = l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Listen = %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestListenTakesTheLongestPath(t *testing.T) {
	dir := openDirFor(t)
	path := dir + "/" + strings.Repeat("x", MaxPath-len(dir)-1)
	mustListen(t, Config{Path: path, GID: -1})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestListenJudgesTheDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test gives directories away: run it as root")
	}
	for name, tc := range map[string]struct {
		mode     os.FileMode
		uid, gid int
		want     string // "" is fine
	}{
		"as systemd makes it":      {0o755, 0, 0, ""},
		"private":                  {0o700, 0, 0, ""},
		"group 0 may write":        {0o775, 0, 0, ""},
		"another group may read":   {0o750, 0, 4567, ""},
		"another group may write":  {0o775, 0, 4567, "chmod g-w"},
		"group of the socket":      {0o2770, 0, 2345, "chmod g-w"},
		"an emptyDir":              {0o777, 0, 0, "make a subdirectory"},
		"an emptyDir with fsGroup": {os.ModeSetgid | 0o777, 0, 4567, "make a subdirectory"},
		"like /tmp":                {os.ModeSticky | 0o777, 0, 0, "make a subdirectory"},
		"only others may write":    {0o702, 0, 0, "make a subdirectory"},
		"another owner":            {0o755, 4567, 0, "belongs to uid 4567"},
		"unmapped owner":           {0o755, int(Overflow), 0, "belongs to uid 65534"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(openDirFor(t), "run")
			if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, tc.uid, tc.gid), os.Chmod(dir, tc.mode)); err != nil {
				t.Fatal(err)
			}
			l, err := Listen(Config{Path: filepath.Join(dir, "s"), Mode: 0o660, GID: 2345})
			if err == nil {
				defer l.Close()
			}
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("Listen = %v, want no error", err)
			case tc.want != "" && (!errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("Listen = %v, want ErrDirectory with %q", err, tc.want)
			}
			if err != nil {
				if entries, _ := os.ReadDir(dir); len(entries) != 0 {
					t.Errorf("a refused directory holds %v", entries)
				}
			}
		})
	}
}

func TestListenTakesASubdirectoryOfAnOpenVolume(t *testing.T) {
	volume := filepath.Join(openDirFor(t), "emptydir")
	dir := filepath.Join(volume, "keyturn")
	if err := errors.Join(os.Mkdir(volume, 0o700), os.Chmod(volume, 0o777), os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	mustListen(t, Config{Path: filepath.Join(dir, "s"), GID: -1})
}

func TestListenFollowsALinkToTheDirectory(t *testing.T) { // /var/run is one
	real, link := t.TempDir(), filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	l := mustListen(t, Config{Path: filepath.Join(link, "s"), GID: -1})
	if _, err := os.Lstat(filepath.Join(real, "s")); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(real, "s")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Close: %v, want it gone", err)
	}
}

func TestListenReplacesADeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	deadSocket(t, path)
	var log bytes.Buffer
	mustListen(t, Config{Path: path, GID: -1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if !strings.Contains(log.String(), "replaced a dead socket") {
		t.Errorf("log = %q", log.String())
	}
}

func TestListenRefusesALiveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first := mustListen(t, Config{Path: path, GID: -1})
	if _, err := Listen(Config{Path: path, GID: -1}); !errors.Is(err, ErrInUse) {
		t.Fatalf("second Listen = %v, want ErrInUse", err)
	}
	if c, err := first.Accept(); err != nil { // the probe
		t.Fatal(err)
	} else {
		_ = c.Close()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first listener does not answer any more: %v", err)
	}
	_ = c.Close()
}

// TestListenRefusesABusySocket: a daemon that is alive but does not accept has
// a full backlog, and connect says EAGAIN, not ECONNREFUSED.
func TestListenRefusesABusySocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := Listen(Config{Path: path, GID: -1}); !errors.Is(err, ErrInUse) {
		t.Errorf("Listen = %v, want ErrInUse", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
}

func TestListenRefusesWhatIsNoSocket(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"file":             func(p string) error { return os.WriteFile(p, []byte("keep"), 0o600) },
		"directory":        func(p string) error { return os.Mkdir(p, 0o700) },
		"fifo":             func(p string) error { return unix.Mkfifo(p, 0o600) },
		"dangling link":    func(p string) error { return os.Symlink("/nowhere", p) },
		"link to a file":   func(p string) error { return os.Symlink("/etc/passwd", p) },
		"link to a device": func(p string) error { return os.Symlink("/dev/null", p) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Listen(Config{Path: path, GID: -1}); !errors.Is(err, ErrNotSocket) {
				t.Errorf("Listen = %v, want ErrNotSocket", err)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("what stood there was touched: %v", err)
			}
		})
	}
}

func TestListenRefusesALinkToADeadSocket(t *testing.T) {
	dir := t.TempDir()
	deadSocket(t, filepath.Join(dir, "real"))
	link := filepath.Join(dir, "s")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(Config{Path: link, GID: -1}); !errors.Is(err, ErrNotSocket) {
		t.Errorf("Listen = %v, want ErrNotSocket", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "real")); err != nil {
		t.Error(err)
	}
}

// TestListenOnce: many daemons find the same dead socket; one gets it, and its
// socket stays reachable.
func TestListenOnce(t *testing.T) {
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		deadSocket(t, path)
		var mu sync.Mutex
		var won []*Listener
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := Listen(Config{Path: path, GID: -1})
				if err != nil {
					if !errors.Is(err, ErrInUse) {
						t.Errorf("Listen = %v, want ErrInUse", err)
					}
					return
				}
				mu.Lock()
				defer mu.Unlock()
				won = append(won, l)
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d listeners, want 1", len(won))
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("the winner cannot be reached: %v", err)
		} else {
			_ = c.Close()
		}
		if err := won[0].Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestListenTakesOverALockFile(t *testing.T) { // as a crash leaves it
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".s.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustListen(t, Config{Path: filepath.Join(dir, "s"), GID: -1})
	if _, err := os.Lstat(filepath.Join(dir, ".s.lock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock file is still there: %v", err)
	}
}

func TestListenRefusesALinkAsLock(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := errors.Join(os.WriteFile(victim, []byte("keep"), 0o600), os.Symlink("victim", filepath.Join(dir, ".s.lock"))); err != nil {
		t.Fatal(err)
	}
	if l, err := Listen(Config{Path: filepath.Join(dir, "s"), GID: -1}); err == nil {
		_ = l.Close()
		t.Error("Listen took a symbolic link as its lock")
	}
}
