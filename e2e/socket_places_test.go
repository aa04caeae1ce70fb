package e2e

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestBadSocketDirectories: where somebody else could put a socket of his own,
// the daemon does not start, and says what to do.
func TestBadSocketDirectories(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		make func(t *testing.T, dir string) // prepares the socket's directory
		want []string
	}{
		"open to everybody": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) },
			[]string{"unsafe socket directory", "can be written by everybody", "make a subdirectory for the socket: mkdir -m 0755"}},
		"sticky": {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777|fs.ModeSticky)) },
			[]string{"can be written by everybody"}},
		"of another user": {func(t *testing.T, dir string) { must(t, os.Chown(dir, 4201, 4201)) },
			[]string{"belongs to uid 4201, who could replace the socket", "must belong to root"}},
		"open to another group": {func(t *testing.T, dir string) { must(t, os.Chown(dir, 0, 4300)); must(t, os.Chmod(dir, 0o775)) },
			[]string{"can be written by group 4300", "chmod g-w"}},
		"absent with the one above it": {func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Dir(dir))) },
			[]string{"directory of the socket: mkdir", "no such file or directory"}},
		"a file in its place": {func(t *testing.T, dir string) { must(t, os.Remove(dir)); must(t, os.WriteFile(dir, nil, 0o600)) },
			[]string{"not a directory"}},
		"a link at the socket's name": {func(t *testing.T, dir string) { must(t, os.Symlink("/tmp/elsewhere.sock", dir+"/sign.sock")) },
			[]string{"a symbolic link stands there (not a socket); name the real path"}},
		"a file at the socket's name": {func(t *testing.T, dir string) { must(t, os.WriteFile(dir+"/sign.sock", []byte("mine"), 0o600)) },
			[]string{"a file of type - stands there (not a socket); remove it or choose another path"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t).edit("path: sign.sock", "path: run/keyturn/sign.sock")
			dir := s.path("run/keyturn")
			must(t, os.MkdirAll(dir, 0o755))
			tc.make(t, dir)
			said := s.refuses()
			wants(t, said, append(tc.want, "listen.sign default", dir)...)
			if doc, err := os.ReadFile(dir + "/sign.sock"); err == nil && string(doc) != "mine" {
				t.Error("what stood at the path was changed")
			}
		})
	}
}

// TestSocketsOfTheDead: a socket file that nobody listens on is replaced; one
// that somebody listens on is not, and goes on working.
func TestSocketsOfTheDead(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, name := range []string{"sign.sock", "admin.sock"} {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path(name)})
		must(t, err)
		ln.SetUnlinkOnClose(false)
		must(t, ln.Close())
	}
	d := s.start("web")
	d.logged(time.Second, `"replaced a dead socket","path":"`+s.path("sign.sock")+`"`)
	for name, mode := range map[string]fs.FileMode{"sign.sock": 0o660, "admin.sock": 0o600} {
		if info, err := os.Stat(s.path(name)); err != nil || info.Mode() != mode|fs.ModeSocket {
			t.Errorf("%s: %v %v, want mode %v", name, info.Mode(), err, mode)
		}
	}

	// A second daemon with everything of its own but one socket.
	second := newSite(t)
	second.edit("path: sign.sock", "path: "+s.path("sign.sock"))
	wants(t, second.refuses(), "listen.sign default", s.path("sign.sock"), "another process listens there; stop it first")
	d.mustToken("web")
	if _, err := os.Stat(second.path("admin.sock")); err == nil {
		t.Error("a daemon that did not start left its admin socket")
	}

	// One in the middle of its start holds the lock beside the socket.
	lock, err := os.OpenFile(second.path(".own.sock.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	second.edit("path: "+s.path("sign.sock"), "path: own.sock")
	wants(t, second.refuses(), "it is just starting (its lock .own.sock.lock is held)")

	d.stop()
	for _, name := range []string{"sign.sock", "admin.sock"} {
		if _, err := os.Stat(s.path(name)); err == nil {
			t.Errorf("%s is left after a clean stop", name)
		}
	}
	left, err := filepath.Glob(s.path(".*.lock"))
	if must(t, err); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	again := s.start("web")
	again.kill() // leaves its sockets
	if _, err := os.Stat(s.path("sign.sock")); err != nil {
		t.Fatal(err)
	}
	s.start("web").mustToken("web")
}

// TestOneCustodyOneProcess: the directory of keys belongs to one process.
func TestOneCustodyOneProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	second := newSite(t).edit("dir: custody, key_file: seal.key", fmt.Sprintf("dir: %s, key_file: %s", s.path("custody"), s.path("seal.key")))
	said := second.refuses()
	wants(t, said, "local.dir: open custody "+s.path("custody"), fmt.Sprintf("another process (pid %d) has it open", d.cmd.Process.Pid), "stop that one, or give this one a directory of its own")
	before := d.mustToken("web").Kid
	d.kill()

	// What the dead held is free; what another key sealed stays closed.
	other := newSite(t).edit("dir: custody", "dir: "+s.path("custody"))
	wants(t, other.refuses(), "local.dir", "it does not open with this key", "give the key file that the directory was made with")
	must(t, os.Chmod(s.path("custody"), 0o755))
	wants(t, s.refuses(), "local.dir", "mode 0755 lets others in; run chmod 700 "+s.path("custody"))
	must(t, os.Chmod(s.path("custody"), 0o700))
	must(t, os.Chmod(s.path("seal.key"), 0o644))
	wants(t, s.refuses(), "local.key_file", "mode 0644 lets others read or change it; run chmod 600")
	must(t, os.WriteFile(s.path("seal.key"), []byte("short"), 0o600))
	must(t, os.Chmod(s.path("seal.key"), 0o600))
	wants(t, s.refuses(), "local.key_file", "it must hold 32 bytes", "openssl rand -base64 32")
	must(t, os.Remove(s.path("seal.key")))
	wants(t, s.refuses(), "local.key_file", "no such file")
	if before == "" {
		t.Error("no kid")
	}
}

// TestStateDirectory: without a place for what was seen last the daemon does
// not start.
func TestStateDirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("state_dir: state", "state_dir: absent/state")
	said := s.refuses()
	wants(t, said, "state_dir: ", s.path("absent/state"), "no such file or directory")
	s.edit("absent/state", "file")
	s.write("file", "", 0o600)
	wants(t, s.refuses(), "state_dir: no file can be made there", "it must be a folder that uid 0 may write", s.path("file"))

	// A user who may not write there.
	binary, err := os.ReadFile(plain)
	must(t, err)
	must(t, os.WriteFile(s.path("keyturn"), binary, 0o755))
	s.edit("state_dir: file", "state_dir: state")
	file := s.save()
	for _, dir := range []string{"run", "keys", "www", "log"} {
		must(t, os.MkdirAll(s.path(dir), 0o755))
		must(t, os.Chown(s.path(dir), 4201, 4201))
	}
	must(t, os.Chown(s.path("seal.key"), 4201, 4201))
	s.edit("path: sign.sock", "path: run/sign.sock").edit("path: admin.sock", "path: run/admin.sock").
		edit("dir: custody", "dir: keys/custody").edit("audit.jsonl", "log/audit.jsonl")
	s.save()
	one := someone{4201, 4201, nil}
	_, said, code := one.does(t, s.path("keyturn"), "run", "--config", file)
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	wants(t, said, "state_dir: ", s.path("state"), "permission denied")
	must(t, os.Mkdir(s.path("state"), 0o755))
	_, said, code = one.does(t, s.path("keyturn"), "run", "--config", file)
	if code != 1 {
		t.Errorf("state_dir of another user: exit code %d", code)
	}
	wants(t, said, "state_dir: no file can be made there", "it must be a folder that uid 4201 may write", s.path("state"))
}
