package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/token"
)

// keeper is keyturn token --watch.
type keeper struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *output
	done chan error
	file string
}

func (s *site) keeps(file string, args ...string) *keeper {
	s.t.Helper()
	k := &keeper{t: s.t, out: &output{}, done: make(chan error, 1), file: s.path(file)}
	k.cmd = exec.Command(keyturn, append([]string{"token", "--watch", "--profile", "web", "--subject", "alice", "--audience", "demo", "--socket", s.path("sign.sock"), "--out", k.file}, args...)...)
	k.cmd.Stdout, k.cmd.Stderr, k.cmd.Env = k.out, k.out, cleanEnv()
	must(s.t, k.cmd.Start())
	go func() { k.done <- k.cmd.Wait() }()
	s.t.Cleanup(func() { _ = k.cmd.Process.Kill() }) // where the test has failed before the end
	return k
}

// end stops it with a signal, and wants a clean end that leaves the file.
func (k *keeper) end(sig syscall.Signal) {
	k.t.Helper()
	must(k.t, k.cmd.Process.Signal(sig))
	select {
	case err := <-k.done:
		if err != nil {
			k.t.Errorf("keyturn token after %s: %v\n%s", sig, err, k.out)
		}
	case <-time.After(20 * time.Second):
		k.t.Fatalf("keyturn token goes on after %s\n%s", sig, k.out)
	}
	if _, err := os.Stat(k.file); err != nil {
		k.t.Errorf("the file is gone: %v", err)
	}
	if found := secretText.FindString(k.out.String()); found != "" {
		k.t.Errorf("it printed %q", found)
	}
}

// next waits for another token than the ones before.
func (k *keeper) next(limit time.Duration, before ...string) string {
	k.t.Helper()
	var got string
	within(k.t, limit, "a new token in the file", func() error {
		doc, err := os.ReadFile(k.file)
		if got = string(doc); err != nil {
			return err
		}
		for _, old := range before {
			if got == old {
				return errors.New("the old one")
			}
		}
		return nil
	})
	return got
}

// reader is a program that reads its token from the file all the time, and
// wants it whole, verifying and not expired.
type reader struct {
	reads int
	err   error
	stop  func()
}

func (k *keeper) reader(jwks string) *reader {
	k.t.Helper()
	doc, err := os.ReadFile(jwks)
	must(k.t, err)
	keys, err := token.ParseSet(doc)
	must(k.t, err)
	r, stop, done := &reader{}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for r.err == nil {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			raw, err := os.ReadFile(k.file)
			if err == nil {
				_, err = token.Verify(keys, string(raw), token.Options{Now: time.Now(), Audience: "demo"})
			}
			if err != nil {
				r.err = fmt.Errorf("read %d at %s: %w", r.reads, time.Now().Format(time.TimeOnly), err)
			}
			r.reads++
		}
	}()
	r.stop = sync.OnceFunc(func() { close(stop); <-done })
	k.t.Cleanup(r.stop)
	return r
}

// TestTokenFile: while the daemon is killed, started again and replaced, who
// reads the file always finds a whole token that verifies and has not expired.
func TestTokenFile(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit(`rotate: "@every 10s", max_token_ttl: 10s`, `rotate: "@every 1h", max_token_ttl: 1m`)
	d := s.start("web")
	k := s.keeps("token", "--ttl", "24s")
	first := k.next(20 * time.Second)
	r := k.reader(s.path("www/jwks.json"))
	info, err := os.Stat(k.file)
	must(t, err)
	if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || int(stat.Uid) != os.Geteuid() || int(stat.Gid) != os.Getegid() {
		t.Errorf("mode %s, uid %d, gid %d", info.Mode(), stat.Uid, stat.Gid)
	}
	d.kill()
	time.Sleep(time.Second) // some tries meet nobody, were they due
	must(t, k.cmd.Process.Signal(syscall.SIGHUP))
	within(t, 10*time.Second, "the reason", func() error {
		if !strings.Contains(k.out.String(), "not replaced, the old one is good for") {
			return fmt.Errorf("it says %s", k.out)
		}
		return nil
	})
	d = s.start("web")
	second := k.next(20*time.Second, first)
	must(t, k.cmd.Process.Signal(syscall.SIGHUP))
	third := k.next(10*time.Second, first, second)
	d.stop()
	s.start("web")
	k.next(30*time.Second, first, second, third) // at two thirds of its life, by itself
	r.stop()
	if r.err != nil || r.reads < 100 {
		t.Errorf("%d reads: %v", r.reads, r.err)
	}
	k.end(syscall.SIGTERM)
	if lines := strings.Count(k.out.String(), "\n"); lines > 8 {
		t.Errorf("%d lines for three causes:\n%s", lines, k.out)
	}
	if left, err := filepath.Glob(s.path(".token.*")); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %q %v", left, err)
	}
}

// TestTokenFileExpires: a daemon that stays away is no reason to give up, and
// an expired token is told, also one that an earlier run left.
func TestTokenFileExpires(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	stdout, stderr, code := cli(t, nil, "token", "--profile", "web", "--subject", "alice", "--audience", "demo", "--ttl", "1s", "--socket", d.sign, "--out", s.path("token"), "--mode", "0640")
	if code != 0 || stdout != "" || stderr != "" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	d.stop()
	k := s.keeps("token", "--mode", "0640")
	within(t, 20*time.Second, "both reasons", func() error {
		for _, want := range []string{"there is no socket", "the token in the file expired at"} {
			if !strings.Contains(k.out.String(), want) {
				return fmt.Errorf("no %q in %s", want, k.out)
			}
		}
		return nil
	})
	old := k.next(0)
	d = s.start("web")
	must(t, verifyWith(d.jwksURL(), k.next(30*time.Second, old), "demo"))
	if info, err := os.Stat(k.file); err != nil || info.Mode() != fs.FileMode(0o640) {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	k.end(syscall.SIGINT)
	if !strings.Contains(k.out.String(), "fresh again") {
		t.Errorf("it says\n%s", k.out)
	}
}
