package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// signers sign until they are stopped, and keep the jti of each token.
type signers struct {
	stop chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	ids  []string
}

func startSigners(t *testing.T, d *daemon, n int) *signers {
	s := &signers{stop: make(chan struct{})}
	for range n {
		s.wg.Go(func() {
			for {
				select {
				case <-s.stop:
					return
				default:
				}
				tok, err := d.token(ask("web"))
				if err != nil {
					t.Errorf("sign: %v", err)
					continue
				}
				s.mu.Lock()
				s.ids = append(s.ids, claimsOf(tok.Token)["jti"].(string))
				s.mu.Unlock()
			}
		})
	}
	return s
}

// end returns the jti of all tokens.
func (s *signers) end() []string {
	close(s.stop)
	s.wg.Wait()
	return s.ids
}

// TestLogrotate: the audit log is renamed and SIGHUP sent while tokens are
// signed. Every token is in one of the files, once, and the lines are whole.
func TestLogrotate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	busy := startSigners(t, d, 4)
	log := s.path("audit.jsonl")
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		must(t, os.Rename(log, fmt.Sprintf("%s.%d", log, i)))
		must(t, d.cmd.Process.Signal(syscall.SIGHUP))
		within(t, 10*time.Second, "a new audit log", func() error {
			info, err := os.Stat(log)
			if err == nil && (info.Size() == 0 || info.Mode().Perm() != 0o600) {
				err = fmt.Errorf("%d bytes, mode %v", info.Size(), info.Mode())
			}
			return err
		})
	}
	ids := busy.end()
	files, err := filepath.Glob(log + ".[0-9]")
	files = append(files, log)
	if must(t, err); len(files) != 4 || len(ids) < 20 {
		t.Errorf("files %v, %d tokens", files, len(ids))
	}
	count := map[string]int{}
	for _, f := range files {
		list := records(t, f)
		if len(list) == 0 {
			t.Errorf("%s is empty", f)
		}
		for _, r := range list {
			if id, ok := r["jti"].(string); ok {
				count[id]++
			}
		}
	}
	for _, id := range ids {
		if count[id] != 1 {
			t.Errorf("token %s is %d times in the logs", id, count[id])
		}
	}
}

// onTmpfs runs the site's daemon with a small file system of its own at a
// folder, which the test reaches through the daemon's root.
func (s *site) onTmpfs(folder, size string) (*daemon, string) {
	s.t.Helper()
	must(s.t, os.MkdirAll(s.path(folder), 0o755))
	script := fmt.Sprintf("mount -t tmpfs -o size=%s,mode=0755 tmpfs %s && exec \"$@\"", size, s.path(folder))
	d := startBinary(s.t, "unshare", s.daemon(), nil, "--mount", "sh", "-c", script, "sh", keyturn, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	return d, fmt.Sprintf("/proc/%d/root%s", d.cmd.Process.Pid, s.path(folder))
}

// fill leaves no room in a file system; the returned func gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	must(t, err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { must(t, os.Remove(f.Name())) }
}

// TestAuditDiskFull: what cannot be recorded is not signed. Health says why,
// and with room on the disk all goes on, with whole lines only.
func TestAuditDiskFull(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("audit.jsonl", "log/audit.jsonl").edit("@every 10s", "@every 1h")
	d, log := s.onTmpfs("log", "32k")
	free := fill(t, log)
	// The last page of the log has room for some lines, refusals have the
	// shortest, and they are decisions as well.
	var last api.SignResponse
	within(t, 20*time.Second, "no room for a token", func() error {
		tok, err := d.token(ask("web"))
		if p, ok := err.(*api.Problem); ok && p.Code == api.Unavailable && p.Status == 503 {
			wants(t, p.Detail, "the audit log cannot be written, so nothing is signed")
			return nil
		}
		last = tok
		return fmt.Errorf("%+v %v", tok.Kid, err)
	})
	within(t, 20*time.Second, "no room for a refusal", func() error {
		if code := d.asks(api.SignRequest{Profile: "x"}); code != api.Unavailable {
			return fmt.Errorf("code %q", code)
		}
		return nil
	})
	for range 20 {
		if code := d.asks(ask("web")); code != api.Unavailable {
			t.Fatalf("while the disk is full: %q", code)
		}
	}
	// A record that is longer than that of a refusal: what has no room has none for it.
	_, errs, code := cli(t, nil, "rotate", "web", "--yes", "--reason", strings.Repeat("x", 900), "--admin-socket", d.admin)
	if code != 2 {
		t.Errorf("rotate while it cannot be recorded: exit code %d", code)
	}
	wants(t, errs, "nothing was done, since the audit log cannot be written")
	if code, h, err := d.health("/readyz/signer"); err != nil || code != 503 || len(h.Reasons) == 0 || h.Reasons[0].Code != "audit_failed" {
		t.Errorf("/readyz/signer: %d %+v %v", code, h, err)
	}
	if code, h, err := d.health("/readyz"); err != nil || code != 200 || h.Status != "degraded" {
		t.Errorf("/readyz: %d %+v %v: the public set is good", code, h, err)
	}
	d.logged(time.Second, `"audit log not written"`)
	before := records(t, filepath.Join(log, "audit.jsonl"))
	allowed := slices.DeleteFunc(slices.Clone(before), func(r map[string]any) bool { return r["decision"] != "allow" })
	if r := allowed[len(allowed)-1]; last.Token != "" && r["jti"] != claimsOf(last.Token)["jti"] {
		t.Errorf("the last token of the log is %v, and %v was released", r, claimsOf(last.Token))
	}
	free()
	within(t, 5*time.Second, "a token with room on the disk", func() error {
		_, err := d.token(ask("web"))
		return err
	})
	if n := len(records(t, filepath.Join(log, "audit.jsonl"))); n != len(before)+1 {
		t.Errorf("%d records, want %d", n, len(before)+1)
	}
	if code, h, err := d.health("/readyz/signer"); err != nil || code != 200 {
		t.Errorf("/readyz/signer: %d %+v %v", code, h, err)
	}
	d.logged(time.Second, "audit log is written again")
}
