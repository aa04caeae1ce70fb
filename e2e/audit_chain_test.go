package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// anchoredSite anchors its log every second, in the local custody.
func anchoredSite(t *testing.T) *site {
	t.Helper()
	return newSite(t).edit("{file: audit.jsonl}", "{file: audit.jsonl, anchor_interval: 1s}").edit("@every 10s", "@every 1h")
}

// head is an anchor, or a record's place in the chain.
type head struct {
	Chain string
	Seq   int
	Hash  string
}

// anchorFile is where a site's log is anchored.
func (s *site) anchorFile() string {
	return s.path("custody/issuers/main/audit/" + filepath.Base(s.dir) + ".json")
}

func (s *site) anchor() (h head, err error) {
	doc, err := os.ReadFile(s.anchorFile())
	if err != nil {
		return h, err
	}
	var stored struct{ Heads []head }
	if err := json.Unmarshal(doc, &stored); err != nil || len(stored.Heads) == 0 {
		return h, fmt.Errorf("%v in %s", err, doc)
	}
	return stored.Heads[len(stored.Heads)-1], nil
}

// anchored waits until the last record is.
func (s *site) anchored() {
	s.t.Helper()
	within(s.t, 20*time.Second, "an anchor of the last record", func() error {
		list := records(s.t, s.path("audit.jsonl"))
		last := list[len(list)-1]
		h, err := s.anchor()
		if err == nil && (h.Hash != last["hash"] || float64(h.Seq) != last["seq"] || h.Chain != last["chain"]) {
			err = fmt.Errorf("%+v is anchored, the log ends in %v", h, last)
		}
		return err
	})
}

// verifies runs keyturn audit verify against the site's anchors.
func (s *site) verifies(t *testing.T, code int, args ...string) string {
	t.Helper()
	args = append([]string{"audit", "verify", "--config", s.path("keyturn.yaml"), "--replica", filepath.Base(s.dir)}, args...)
	out, errs, got := cli(t, nil, args...)
	if got != code {
		t.Errorf("keyturn %s: exit code %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	return out
}

// floodWithRefusals asks for a profile that there is not, over and over.
func (d *daemon) floodWithRefusals(n int) {
	d.t.Helper()
	client := overUnix(d.sign)
	for range n {
		var p *api.Problem
		if err := call(client, "POST", "http://keyturn/v1/sign", []byte(`{"profile":"nothere"}`), nil); err == nil {
			d.t.Fatal("a profile that there is not signs")
		} else if p, _ = err.(*api.Problem); p == nil || p.Code != api.Forbidden {
			d.t.Fatal(err)
		}
	}
}

func refusalsIn(t *testing.T, files ...string) (count, lines int) {
	t.Helper()
	for _, f := range files {
		for _, r := range records(t, f) {
			if r["profile"] == "nothere" {
				n, _ := r["count"].(float64)
				count, lines = count+max(1, int(n)), lines+1
			}
		}
	}
	return count, lines
}

// TestAuditVerify: over a flood, kill -9, a rotation and a restart the chain is
// whole; a changed, a dropped and a missing record are named.
func TestAuditVerify(t *testing.T) {
	t.Parallel()
	s := anchoredSite(t)
	log := s.path("audit.jsonl")
	d := s.start("web")
	d.floodWithRefusals(300)
	within(t, 20*time.Second, "the number of the refusals", func() error {
		if count, lines := refusalsIn(t, log); count != 300 || lines > 120 {
			return fmt.Errorf("%d refusals in %d lines", count, lines)
		}
		return nil
	})
	d.kill()
	d = s.start("web")
	d.mustToken("web")
	must(t, os.Rename(log, log+".1"))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	within(t, 10*time.Second, "a new audit log", func() error { d.mustToken("web"); _, err := os.Stat(log); return err })
	d.floodWithRefusals(100)
	s.anchored()
	wants(t, s.verifies(t, 0), "whole:", "in 2 files", "ANCHORED TO")
	d.stop()
	if count, _ := refusalsIn(t, log+".1", log); count != 400 {
		t.Errorf("%d refusals are in the logs, want 400", count)
	}
	s.anchored()
	wants(t, s.verifies(t, 0, log, log+".1"), "whole:")
	doc, err := os.ReadFile(log)
	must(t, err)
	lines := strings.SplitAfter(strings.TrimSuffix(string(doc), "\n"), "\n")
	lines[len(lines)-1] += "\n"
	for name, tc := range map[string]struct {
		edit func(lines []string) []string
		want []string
	}{
		"changed":   {func(l []string) []string { l[1] = strings.Replace(l[1], `"event"`, `"Event"`, 1); return l }, []string{"changed", ":2"}},
		"dropped":   {func(l []string) []string { return slices.Delete(l, 2, 5) }, []string{"dropped", ":3", "3 records between"}},
		"swapped":   {func(l []string) []string { l[3], l[4] = l[4], l[3]; return l }, []string{"reordered", ":4"}},
		"truncated": {func(l []string) []string { return l[:len(l)-2] }, []string{"truncated", "2 records or more are missing at the end"}},
		"half":      {func(l []string) []string { l[len(l)-1] = l[len(l)-1][:40]; return l }, []string{"truncated", "1 record or more is missing at the end", "a write was cut off here"}},
	} {
		copied := s.path(name + ".jsonl")
		must(t, os.WriteFile(copied, []byte(strings.Join(tc.edit(slices.Clone(lines)), "")), 0o600))
		wants(t, s.verifies(t, 1, copied, log+".1"), append(tc.want, "damaged:")...)
	}
	asDocumented(t, log+".1", log, s.path("changed.jsonl"))
}

// asDocumented runs the lines of docs/audit.md that verify without keyturn.
func asDocumented(t *testing.T, old, log, changed string) {
	t.Helper()
	doc, err := os.ReadFile("../docs/audit.md")
	must(t, err)
	block := func(lang string) string {
		m := regexp.MustCompile("(?s)```"+lang+"\n(.*?)```").FindAllStringSubmatch(string(doc), -1)
		for _, one := range m {
			if strings.Contains(one[1], "sha256") {
				return one[1]
			}
		}
		t.Fatalf("docs/audit.md has no lines in %s that verify", lang)
		return ""
	}
	script := block("python")
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = filepath.Dir(log)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	list := records(t, log)
	last := list[len(list)-1]
	out, err := run("/usr/bin/python3", "-c", script, old, log)
	if want := fmt.Sprintf("whole up to record %.0f %s\n", last["seq"], last["hash"]); err != nil || out != want {
		t.Errorf("python: %v, %q, want %q", err, out, want)
	}
	if out, err := run("/usr/bin/python3", "-c", script, old, changed); err == nil || !strings.Contains(out, "changed.jsonl:2: this line was changed") {
		t.Errorf("python on a changed log: %v, %q", err, out)
	}
	if out, err := run("/usr/bin/python3", "-c", script, log, old); err == nil || !strings.Contains(out, "does not follow record") {
		t.Errorf("python on files in the wrong order: %v, %q", err, out)
	}
	shell := block("sh")
	if strings.Contains(shell, "| jq") { // the same, where jq is not installed
		shell = "jq() { /usr/bin/python3 -c 'import json,sys; print(json.load(sys.stdin)[sys.argv[2][1:]])' \"$@\"; }\n" + shell
	}
	out, err = run("sh", "-euc", shell)
	if lines := strings.Fields(out); err != nil || len(lines) != 2 || lines[0] != lines[1] || lines[0] != list[2]["hash"] {
		t.Errorf("sh: %v, %q", err, out)
	}
}

// TestAuditDiskFullChain: what a full disk leaves does not break the chain, and
// the daemon goes on by itself.
func TestAuditDiskFullChain(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("audit.jsonl", "log/audit.jsonl").edit("@every 10s", "@every 1h")
	d, log := s.onTmpfs("log", "32k")
	free := fill(t, log)
	within(t, 20*time.Second, "no room", func() error {
		if code := d.asks(ask("web")); code != api.Unavailable {
			return fmt.Errorf("code %q", code)
		}
		return nil
	})
	d.reason(10*time.Second, "degraded", "audit_failed", "cannot be written")
	if line := d.metric(`keyturn_alarms{code="audit_failed"}`); !strings.HasSuffix(line, " 1") {
		t.Errorf("metric %q", line)
	}
	free()
	within(t, 10*time.Second, "a token with room on the disk", func() error { _, err := d.token(ask("web")); return err })
	d.reason(10*time.Second, "ok", "", "")
	d.kill() // and after a crash
	copied := s.path("copy.jsonl")
	d, log = s.onTmpfs("log", "1m")
	d.mustToken("web")
	doc, err := os.ReadFile(filepath.Join(log, "audit.jsonl"))
	must(t, err)
	must(t, os.WriteFile(copied, doc, 0o600))
	if out, errs, code := cli(t, nil, "audit", "verify", copied); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}
