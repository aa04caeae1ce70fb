package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestNoKeyInACore: a daemon that dies as a program with a defect does, with
// all that the kernel and the runtime may tell of it: unlimited cores, traces of
// every goroutine. There is no core, and no key in anything that is left.
func TestNoKeyInACore(t *testing.T) {
	t.Parallel()
	coreOfOthers(t)
	for _, sig := range []syscall.Signal{syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s := newSite(t).edit("@every 10s", "@every 1h").edit("level: info", "level: debug")
			d := startBinary(t, "sh", s.daemon(), []string{"GOTRACEBACK=crash"}, "-c",
				`cd "$1" && ulimit -c unlimited && exec "$2" run --config "$3"`, "sh", s.dir, plain, s.save())
			d.canSign(30*time.Second, "web")
			d.standby(10*time.Second, "web")
			d.mayNotBeRead(t)
			halves := map[string][][]byte{}
			sealed, err := filepath.Glob(s.path("custody/issuers/main/keys/*.sealed"))
			must(t, err)
			for _, f := range sealed {
				_, key := s.sealedHalf(f)
				halves[filepath.Base(f)] = needles(t, key)
			}
			docs := d.answers()
			ended := d.signsTillItsEnd(8)
			time.Sleep(300 * time.Millisecond) // in the middle of signatures
			must(t, d.cmd.Process.Signal(sig))
			select {
			case <-d.exited:
			case <-time.After(20 * time.Second):
				t.Fatalf("it outlives %v", sig)
			}
			status := d.cmd.ProcessState.Sys().(syscall.WaitStatus)
			d.cmd = nil
			ended()
			if status.CoreDump() || !status.Signaled() && status.ExitStatus() != 2 {
				t.Errorf("after %v: core %v, signal %v, exit status %d", sig, status.CoreDump(), status.Signal(), status.ExitStatus())
			}
			docs["its last words"] = []byte(d.out.String())
			wants(t, d.out.String(), "goroutine ", sig.String()[:4])
			searchDump(t, s, docs, halves)
		})
	}
}

// coreOfOthers shows that this machine makes cores of those who let it.
func coreOfOthers(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("sh", "-c", `cd "$1" && ulimit -c unlimited && exec sleep 60`, "sh", dir)
	must(t, cmd.Start())
	time.Sleep(200 * time.Millisecond) // until it is sleep
	must(t, cmd.Process.Signal(syscall.SIGABRT))
	_ = cmd.Wait() // it was killed
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.CoreDump() {
		t.Fatalf("a process that lets the kernel dump it leaves no core (%v): nothing can be shown here", status)
	}
}

// signsTillItsEnd keeps a daemon busy; the returned func waits for the last who
// asked.
func (d *daemon) signsTillItsEnd(n int) func() {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for {
				if _, err := d.token(ask("web")); err != nil {
					return // it has died, as it is to
				}
			}
		})
	}
	return wg.Wait
}

// mayNotBeRead: the kernel gives what there is of the process to root alone.
func (d *daemon) mayNotBeRead(t *testing.T) {
	t.Helper()
	info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", d.cmd.Process.Pid))
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("its memory belongs to uid %d", owner)
	}
}

// searchDump looks for the keys in documents and in every file of the site but
// the one that holds the seal.
func searchDump(t *testing.T, s *site, docs map[string][]byte, halves map[string][][]byte) {
	t.Helper()
	if len(halves) < 2 || len(docs) < 10 {
		t.Errorf("only %d keys and %d documents", len(halves), len(docs))
	}
	seal := must1(os.ReadFile(s.path("seal.key")))(t)
	raw := must1(base64.StdEncoding.DecodeString(string(seal)))(t)
	halves["the seal"] = [][]byte{seal, raw, []byte(hex.EncodeToString(raw)), []byte(base64.RawURLEncoding.EncodeToString(raw))}
	must(t, filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), "core") {
			t.Errorf("there is %s", path)
		}
		if err == nil && e.Type().IsRegular() && path != s.path("seal.key") {
			docs[path], err = os.ReadFile(path)
		}
		return err
	}))
	for name, doc := range docs {
		for kid, list := range halves {
			if holds(doc, list) {
				t.Errorf("%s shows in %s", kid, name)
			}
		}
	}
}

// TestDebuggersStayOut: what may debug a process of the same user (the right to
// open its memory is the right to attach) may not debug the daemon.
func TestDebuggersStayOut(t *testing.T) {
	t.Parallel()
	one := someone{4203, 4203, nil}
	s := newSite(t)
	must(t, filepath.WalkDir(s.dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, one.uid, one.gid))
	}))
	must(t, os.WriteFile(s.path("keyturn"), must1(os.ReadFile(plain))(t), 0o755))
	d := startBinary(t, "setpriv", s.daemon(), nil, "--reuid=4203", "--regid=4203", "--clear-groups", "--inh-caps=-all",
		s.path("keyturn"), "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	d.mayNotBeRead(t)
	open := func(pid, what string) (string, int) {
		_, said, code := one.does(t, "sh", "-c", "exec 3< /proc/"+pid+"/"+what)
		return said, code
	}
	pid := strconv.Itoa(d.cmd.Process.Pid)
	for _, what := range []string{"mem", "maps", "environ", "fd/0"} {
		if said, code := open(pid, what); code == 0 || !strings.Contains(said, "ermission denied") {
			t.Errorf("%s of the daemon: exit code %d, %s", what, code, said)
		}
	}
	// A process of that user that takes no such care, for comparison.
	if out, said, code := one.does(t, "sh", "-c", "sleep 20 & sleep 0.3; exec 3< /proc/$!/mem && kill $! && echo read"); code != 0 || !strings.Contains(out, "read") {
		t.Errorf("not even the memory of an ordinary process can be read here: %d %s%s", code, out, said)
	}
	d.mustToken("web")
}
