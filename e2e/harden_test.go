package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestConfined: a daemon that must be confined does all that a daemon does:
// it logs in from files, signs, rotates, publishes into a folder that is made
// anew, takes a new certificate and a new configuration, goes on with a new
// audit file, logs in again, and stops without leaving its sockets.
func TestConfined(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	ca := newAuthority(t, s.path("ca.pem"))
	must(t, os.Mkdir(s.path("tls"), 0o755))
	// Elsewhere than the sockets, in whose folder everything may be written.
	www := newSite(t).path("www")
	ca.serve(2, s.path("tls/tls.pem"), s.path("tls/tls.key"))
	s.edit("insecure: true", "tls: {cert_file: tls/tls.pem, key_file: tls/tls.key}").edit("url: http://", "url: https://").
		edit("file: jwks.json", "file: "+www+"/jwks.json").edit("audit: {", "hardening: {landlock: required}\naudit: {")
	d := s.start("web")
	d.logged(time.Second, `"msg":"confined","landlock_abi":`)
	d.isHardened()
	first := d.mustToken("web").Kid

	d.reason(15*time.Second, "ok", "", "")
	must(t, os.Rename(www, www+"-old")) // in one step: the daemon repairs what it publishes
	d.reason(15*time.Second, "unavailable", "publish_failed", "no such file or directory")
	must(t, os.Mkdir(www, 0o755))
	d.reason(15*time.Second, "ok", "", "")
	if _, err := os.Stat(www + "/jwks.json"); err != nil {
		t.Error(err)
	}

	must(t, os.Rename(s.path("audit.jsonl"), s.path("audit.jsonl.1")))
	ca.serve(3, s.path("tls/tls.pem"), s.path("tls/tls.key"))
	s.edit("profiles:\n", "profiles:\n  - {name: mine, ring: web, allow: [{socket: default}], subject: {fixed: me}, audiences: [a]}\n").reload(d)
	if got := d.metric("keyturn_config_last_reload_successful"); got != "keyturn_config_last_reload_successful 1" {
		t.Error(got)
	}
	if n := serial(t, s.site); n != 3 {
		t.Errorf("the listener shows certificate %d, want 3", n)
	}
	d.mustToken("web")
	if info, err := os.Stat(s.path("audit.jsonl")); err != nil || info.Mode() != 0o600 || len(records(t, s.path("audit.jsonl"))) == 0 {
		t.Errorf("the new audit file: %v %v", info, err)
	}

	s.loginAnew(d)
	within(t, 60*time.Second, "a rotation", func() error {
		if d.mustToken("web").Kid == first {
			return errors.New("the first key still signs")
		}
		return nil
	})
	d.stop()
	for _, name := range []string{"sign.sock", "admin.sock"} {
		if _, err := os.Lstat(s.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// loginAnew takes the daemon's token from it, and waits for another login.
func (s *vaultSite) loginAnew(d *daemon) {
	s.t.Helper()
	logins := strings.Count(d.out.String(), `"msg":"vault login"`)
	for _, accessor := range s.accessors() {
		s.vault.Write(s.t, "auth/token/revoke-accessor", map[string]any{"accessor": accessor})
	}
	within(s.t, 20*time.Second, "another login", func() error {
		if n := strings.Count(d.out.String(), `"msg":"vault login"`); n <= logins {
			return fmt.Errorf("%d logins", n)
		}
		return nil
	})
}

// isHardened looks at a daemon from outside, as root may.
func (d *daemon) isHardened() {
	d.t.Helper()
	proc := fmt.Sprintf("/proc/%d/", d.cmd.Process.Pid)
	tasks, err := filepath.Glob(proc + "task/*/status")
	must(d.t, err)
	for _, task := range tasks {
		doc, err := os.ReadFile(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that has ended
		}
		must(d.t, err)
		wants(d.t, string(doc), "\nNoNewPrivs:\t1\n", "\nUmask:\t0077\n")
	}
	limits, err := os.ReadFile(proc + "limits")
	must(d.t, err)
	if core := regexp.MustCompile(`(?m)^Max core file size +0 +0 `); !core.Match(limits) {
		d.t.Errorf("limits:\n%s", limits)
	}
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/vars"} {
		resp, err := http.Get("http://" + d.status + path)
		must(d.t, err)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			d.t.Errorf("%s: status %d", path, resp.StatusCode)
		}
	}
}

// TestConfinedAway: what lies elsewhere is closed, even to a daemon that is
// root: a certificate there is refused at a reload, with what to do. Without
// Landlock it is taken.
func TestConfinedAway(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"auto", "off"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			elsewhere := t.TempDir()
			s := newSite(t).edit("insecure: true", "tls: {cert_file: tls.pem, key_file: tls.key}").edit("url: http://", "url: https://").
				edit("audit: {", "hardening: {landlock: \""+mode+"\"}\naudit: {")
			ca := newAuthority(t, s.path("ca.pem"))
			ca.serve(2, s.path("tls.pem"), s.path("tls.key"))
			ca.serve(3, elsewhere+"/tls.pem", elsewhere+"/tls.key")
			d := s.start("web")
			s.edit("tls.pem", elsewhere+"/tls.pem").edit("tls.key", elsewhere+"/tls.key").reload(d)
			want := map[string]int64{"auto": 2, "off": 3}[mode]
			if n := serial(t, s); n != want {
				t.Errorf("the listener shows certificate %d, want %d", n, want)
			}
			if mode == "auto" {
				d.logged(time.Second, "permission denied: keyturn confined itself at its start, when no setting named a file in "+elsewhere+": restart it")
			}
		})
	}
}

// TestConfinedFolder: a folder that stands too high for a rule above it and is
// made anew takes a restart, and an alarm says so.
func TestConfinedFolder(t *testing.T) {
	t.Parallel()
	for name, health := range map[string]string{"published": "unavailable", "certificate": "degraded"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("/tmp", "kt-folder-")
			must(t, err)
			t.Cleanup(func() { must(t, errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+"-old"))) })
			s := newSite(t)
			fill := func() { must(t, os.Chmod(dir, 0o755)) }
			if name == "published" {
				s.edit("www/jwks.json", dir+"/jwks.json")
			} else {
				s.edit("insecure: true", "tls: {cert_file: "+dir+"/tls.pem, key_file: "+dir+"/tls.key}").edit("url: http://", "url: https://")
				ca := newAuthority(t, s.path("ca.pem"))
				fill = func() { ca.serve(2, dir+"/tls.pem", dir+"/tls.key") }
			}
			fill()
			d := s.start("web")
			d.reason(10*time.Second, "ok", "", "")
			must(t, os.Rename(dir, dir+"-old")) // in one step: the daemon repairs what it publishes
			must(t, os.Mkdir(dir, 0o755))
			fill()
			d.reason(10*time.Second, health, "confined", dir+" was made or mounted after keyturn had confined itself, and is closed to it: restart keyturn")
			d.stop()
			d = s.start("web")
			d.reason(10*time.Second, "ok", "", "")
		})
	}
}

// TestStacksWithoutMemory: who asks a daemon under load what it does gets every
// goroutine, and no word of memory or of a register.
func TestStacksWithoutMemory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := startBinary(t, plain, s.daemon(), []string{"GOTRACEBACK=crash"}, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	ended := d.signsTillItsEnd(8)
	time.Sleep(200 * time.Millisecond) // in the middle of signatures
	must(t, d.cmd.Process.Signal(syscall.SIGQUIT))
	select {
	case <-d.exited:
	case <-time.After(20 * time.Second):
		t.Fatal("it outlives SIGQUIT")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	d.cmd = nil
	ended()
	wants(t, d.out.String(), "keyturn: signal: quit", "goroutine 1 [", "daemon.Run(...)", "created by ")
	_, dump, _ := strings.Cut(d.out.String(), "keyturn: signal: quit")
	if word := regexp.MustCompile(`\([^)\n]*0x[0-9a-f]+[^)\n]*\)|\br(ax|ip|sp|15)\b`).FindString(dump); word != "" {
		t.Errorf("the dump tells %q", word)
	}
}

// TestSecondSignal: who sends SIGTERM again and again gets the clean end that
// the first one began.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for range 3 {
		s := newSite(t)
		d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
		d.canSign(30*time.Second, "web")
		var err error
		for ended := false; !ended; {
			_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may be gone
			select {
			case err = <-d.exited:
				ended = true
			default:
			}
		}
		d.cmd = nil
		if err != nil || !strings.Contains(d.out.String(), `"msg":"stopped"`) {
			t.Errorf("after many SIGTERM: %v", err)
		}
	}
}
