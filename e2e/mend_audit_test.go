package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAuditNotRequired: where the log is missing at the start and need not be
// there, an alarm counts what is signed without a record until it can be opened,
// and then the log tells it.
func TestAuditNotRequired(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("{file: audit.jsonl}", "{file: log/audit.jsonl, required: false, anchor_interval: 1s}").edit("@every 10s", "@every 1h")
	d := s.start("web")
	d.mustToken("web")
	d.reason(10*time.Second, "degraded", "audit_failed", "go on without a record: ")
	if text, err := d.alarm("audit_failed"); err != nil || !strings.Contains(text, "does not exist") || strings.Contains(text, "go on without a record: 0 ") {
		t.Errorf("alarm %q, %v", text, err)
	}
	must(t, os.Mkdir(s.path("log"), 0o700))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.reason(10*time.Second, "ok", "", "")
	d.mustToken("web")
	list := records(t, s.path("log/audit.jsonl"))
	if n, _ := list[0]["count"].(float64); list[0]["event"] != "lost" || n < 1 || list[0]["first"] == nil {
		t.Errorf("the log begins with %v", list[0])
	}
	s.write("keyturn.yaml", s.text, 0o644)
	within(t, 20*time.Second, "an anchor", func() error { _, err := s.anchor(); return err })
	wants(t, s.verifies(t, 0), "whole:")
}

// TestAuditRotatedAfterACrash: the log of a daemon that was killed is renamed
// before the next start, as logrotate does at boot. The chain goes on, and nobody is alarmed.
func TestAuditRotatedAfterACrash(t *testing.T) {
	t.Parallel()
	s := anchoredSite(t)
	log := s.path("audit.jsonl")
	d := s.start("web")
	d.mustToken("web")
	s.anchored()
	d.kill()
	must(t, os.Rename(log, log+".1"))
	before := records(t, log+".1")
	last := before[len(before)-1]
	d = s.start("web")
	d.mustToken("web")
	if first := records(t, log)[0]; first["chain"] != last["chain"] || first["prev"] != last["hash"] {
		t.Errorf("the new file begins with %v, the old one ends in %v", first, last)
	}
	s.anchored() // which is refused where what was anchored is not in the log
	d.reason(10*time.Second, "ok", "", "")
	if out := s.verifies(t, 0); !strings.Contains(out, "whole:") || strings.Contains(out, "chains") {
		t.Errorf("verify says\n%s", out)
	}
}

// TestSocketsGone: a socket that was taken away is an alarm, and one that a
// restart ends.
func TestSocketsGone(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	d.reason(10*time.Second, "ok", "", "")
	for _, name := range []string{"sign.sock", "admin.sock"} {
		path := s.path(name)
		must(t, os.Rename(path, path+".away"))
		d.reason(10*time.Second, "degraded", "socket_gone", path+" was removed while keyturn listens on it")
		d.logged(time.Second, `"msg":"socket is gone, and nobody new gets in","path":"`+path)
		s.write(name, "", 0o600)
		d.reason(10*time.Second, "degraded", "socket_gone", path+" is another file")
		must(t, os.Rename(path+".away", path))
		d.reason(10*time.Second, "ok", "", "")
	}
	d.stop()
	if text := d.out.String(); strings.Contains(text[strings.LastIndex(text, `"stopping"`):], "is gone") {
		t.Error("the end of the daemon is an alarm")
	}
}

// TestReloadOfAFIFO: a FIFO in the place of the configuration is refused and keeps
// neither the audit log from being reopened nor the daemon from ending.
func TestReloadOfAFIFO(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.save())
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	must(t, os.Remove(s.path("keyturn.yaml")))
	must(t, syscall.Mkfifo(s.path("keyturn.yaml"), 0o644))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.refusesFile(0, "keyturn.yaml", "is no regular file")
	log := s.path("audit.jsonl")
	must(t, os.Rename(log, log+".9"))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	within(t, 10*time.Second, "a new audit log", func() error { _, err := os.Stat(log); return err })
	if v, err := d.probe(); err != nil || v != "v0" || len(records(t, log)) == 0 {
		t.Errorf("%s, %v, and %d records", v, err, len(records(t, log)))
	}
	began := time.Now()
	d.stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it ended after %s", took)
	}
}

// TestConfigurationFurtherUp: a folder above that of the configuration is
// exchanged, which a confined process cannot follow: it says so, and that a restart
// mends it.
func TestConfigurationFurtherUp(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	for _, path := range []string{"state_dir: state", "dir: custody", "key_file: seal.key", "path: sign.sock", "path: admin.sock", "file: www/jwks.json", "file: audit.jsonl"} {
		field, name, _ := strings.Cut(path, ": ")
		s.edit(path, field+": "+s.path(name))
	}
	etc, err := os.MkdirTemp("/tmp", "kt-etc-") // beside, for the site's folder is open to the daemon
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(etc)) })
	must(t, os.Chmod(etc, 0o755))
	file := filepath.Join(etc, "a/b/keyturn.yaml")
	folder := func(n int) {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(s.version(n)), 0o644))
	}
	folder(0)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", file)
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	must(t, os.Rename(filepath.Join(etc, "a"), filepath.Join(etc, "old")))
	folder(1)
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.refusesFile(0, filepath.Dir(file)+" was made or mounted after keyturn had confined itself", "restart keyturn", "so it is where a folder above it was exchanged")
	d.reason(10*time.Second, "degraded", "confined", filepath.Dir(file))
	d.stop()
	d = startBinary(t, keyturn, s.daemon(), nil, "run", "--config", file)
	d.becomes(1)
}

// TestAuditFullNotRequired: on a full disk it is signed all the same, and how many
// decisions have no record is told: by the alarm, and by the log when there is room.
func TestAuditFullNotRequired(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("{file: audit.jsonl}", "{file: log/audit.jsonl, required: false}").edit("@every 10s", "@every 1h")
	d, log := s.onTmpfs("log", "32k")
	free := fill(t, log)
	const most = 64 // what a page of the file still takes is recorded
	for range most {
		d.mustToken("web")
	}
	d.reason(10*time.Second, "degraded", "audit_failed", "no space left on device")
	text, err := d.alarm("audit_failed")
	must(t, err)
	var lost int
	if _, after, ok := strings.Cut(text, "go on without a record: "); !ok {
		t.Errorf("alarm %q", text)
	} else if _, err := fmt.Sscanf(after, "%d of them since", &lost); err != nil || lost < 1 || lost > most {
		t.Errorf("alarm %q: %v", text, err)
	}
	free()
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.reason(10*time.Second, "ok", "", "")
	list := records(t, filepath.Join(log, "audit.jsonl"))
	if last := list[len(list)-1]; last["event"] != "lost" || last["count"] != float64(lost) {
		t.Errorf("the log ends in %v, and %d were lost", last, lost)
	}
}
