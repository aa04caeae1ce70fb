package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
)

// auditLog is a log of nine records in two files, and its heads after each three.
func auditLog(t *testing.T) (path string, heads []audit.Head) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		if i == 4 {
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			if err := l.Reopen(); err != nil {
				t.Fatal(err)
			}
		}
		r := audit.Record{
			Time: time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC), Event: audit.EventSign, Decision: audit.Allow, Socket: "default", UID: 1000, PID: 42,
			Profile: "orders", Kid: "k1", JTI: fmt.Sprint("j", i), Subject: "user\x1b]0;x\a allow", Audiences: []string{"a", "b c"},
			ExpiresAt: time.Date(2026, 3, 1, 12, 5, 0, 0, time.UTC),
		}
		if i == 8 {
			r = audit.Record{Time: r.Time, Event: audit.EventSign, Decision: audit.Deny, Code: "forbidden", UID: 7, Profile: "x", Count: 37, First: r.Time}
		}
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if i%3 == 2 {
			h, err := l.Head(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, h)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return path, heads
}

// command runs a command line in this process.
func command(t *testing.T, cfg Config, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	cfg.Args, cfg.Stdout, cfg.Stderr = args, &o, &e
	if cfg.Stdin == nil {
		cfg.Stdin = strings.NewReader("")
	}
	code = Execute(t.Context(), cfg)
	return o.String(), e.String(), code
}

func wantText(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%q is missing in:\n%s", text, said)
		}
	}
}

func rewrite(t *testing.T, path string, edit func(lines []string) []string) {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := edit(strings.SplitAfter(string(doc), "\n"))
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAuditVerify(t *testing.T) {
	path, heads := auditLog(t)
	out, errs, code := command(t, Config{}, "audit", "verify", path, path+".1", path+".lock", path)
	if wantText(t, out, "whole: 9 records in 2 files", heads[2].Chain, heads[2].Hash, "note: no anchor was given"); code != 0 {
		t.Errorf("exit code %d: %s", code, errs)
	}
	last := fmt.Sprintf("%d:%s", heads[2].Seq, heads[2].Hash)
	out, errs, code = command(t, Config{}, "audit", "verify", "--head", last, "-o", "json", path, path+".1")
	var r verify.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Chains[0].Anchored == nil || len(r.Notes) != 0 {
		t.Errorf("%v, exit code %d, %s %s", err, code, out, errs)
	}
	out, _, code = command(t, Config{}, "audit", "verify", "--head", last, path+".1")
	if wantText(t, out, "truncated", "5 records or more are missing at the end"); code != 1 {
		t.Errorf("the first file alone: exit code %d", code)
	}
	doc, err := audit.Anchors{Schema: audit.Schema, Replica: "h", Heads: heads}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, path, func(lines []string) []string { return append(lines[:1], lines[2:]...) })
	out, errs, code = command(t, Config{Stdin: bytes.NewReader(doc)}, "audit", "verify", "--anchor", "-", path, path+".1")
	if wantText(t, out, "dropped", path+":2", "1 record between 5 and 7 is missing", "damaged: 8 records in 2 files"); code != 1 {
		t.Errorf("exit code %d", code)
	}
	wantText(t, errs, "the audit log is damaged: 1 fault; keep the files, the anchors and this answer as they are, and see docs/audit.md")
}

func TestAuditVerifyUsage(t *testing.T) {
	path, heads := auditLog(t)
	other, _ := auditLog(t)
	hash := strings.Repeat("a", 64)
	empty, none := path+".empty", path+".none"
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.WriteFile(none, []byte(`{"schema":1,"replica":"h","heads":[]}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no file":         {nil, exitUsage, "name the files of the log"},
		"missing file":    {[]string{path + ".nothere"}, exitFailed, "no such file"},
		"replica alone":   {[]string{"--replica", "x", path}, exitUsage, "--replica belongs to --config"},
		"head no number":  {[]string{"--head", "x:" + hash, path}, exitUsage, "SEQ:HASH"},
		"head zero":       {[]string{"--head", "0:" + hash, path}, exitUsage, "SEQ:HASH"},
		"head no digits":  {[]string{"--head", "1:" + strings.Repeat("g", 64), path}, exitUsage, "SEQ:HASH"},
		"head of nothing": {[]string{"--head", "3:" + heads[0].Hash, empty}, exitFailed, "there is no record in these files, and record 3 has to be in the log"},
		"head of two":     {[]string{"--head", "3:" + heads[0].Hash, other, path, path + ".1"}, exitUsage, "the files hold 2 chains"},
		"anchor no head":  {[]string{"--anchor", none, path}, exitFailed, "--anchor: nothing is anchored there"},
		"head rotated":    {[]string{"--head", fmt.Sprintf("3:%s", heads[0].Hash), path}, exitFailed, "damaged: 1 fault;"},
		"a directory":     {[]string{filepath.Dir(path)}, exitFailed, "is a directory"},
		"no flag":         {[]string{"--nope", path}, exitUsage, "unknown flag"},
		"head short":      {[]string{"--head", "1:abc", path}, exitUsage, "SEQ:HASH"},
		"head of another": {[]string{"--head", "C:1:" + hash, path, path + ".1"}, exitFailed, "damaged"},
		"head forged":     {[]string{"--head", fmt.Sprintf("3:%s", hash), path, path + ".1"}, exitFailed, "damaged"},
		"head by chain":   {[]string{"--head", heads[0].Chain + ":3:" + heads[0].Hash, path, path + ".1"}, 0, ""},
		"anchor no JSON":  {[]string{"--anchor", path, path}, exitFailed, "--anchor: no anchors of an audit log"},
		"format":          {[]string{"-o", "xml", path}, exitUsage, "table, json or yaml"},
	} {
		out, errs, code := command(t, Config{}, append([]string{"audit", "verify"}, tc.args...)...)
		if code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: exit code %d, want %d: %s%s", name, code, tc.code, out, errs)
		}
	}
}

// TestAuditVerifyPrints: one line for each damage, with its file, line and record.
func TestAuditVerifyPrints(t *testing.T) {
	path, heads := auditLog(t)
	rewrite(t, path, func(lines []string) []string { // without record 5; 7 and 8 changed places
		return []string{lines[1], lines[3], lines[2], lines[4]}
	})
	out, errs, code := command(t, Config{}, "audit", "verify", "--head", fmt.Sprintf("%d:%s", heads[0].Seq, heads[0].Hash), path+".1", path)
	if code != exitFailed {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, want := range [][]string{
		{"DAMAGE", "WHERE", "RECORD", "WHAT"},
		{"dropped", path + ":1", "6", "1 record between 4 and 6 is missing; where there is a file between " + path + ".1 and " + path + ", name it, too"},
		{"reordered", path + ":2", "8", "record 8 stands before record 7, which it follows and which is at " + path + ":3"},
	} {
		if !strings.Contains(flat(out), strings.Join(want, "  ")) {
			t.Errorf("no line %q in\n%s", want, out)
		}
	}
	wantText(t, out, "  3\n", "\ndamaged: 8 records in 2 files\n") // anchored to record 3, at no time
	wantText(t, errs, "2 faults")

	empty := path + ".empty"
	rewrite(t, path, func([]string) []string { return nil })
	if err := os.Rename(path, empty); err != nil {
		t.Fatal(err)
	}
	out, _, code = command(t, Config{}, "audit", "verify", empty)
	if wantText(t, out, "empty: 0 records in 1 file\n", "note: there is no record in these files"); code != 0 {
		t.Errorf("an empty log: exit code %d", code)
	}
}

// flat has two spaces between columns, however wide they are.
func flat(table string) string { return regexp.MustCompile(`  +`).ReplaceAllString(table, "  ") }

func TestAuditVerifyByConfiguration(t *testing.T) {
	path, heads := auditLog(t)
	file := filepath.Join(filepath.Dir(path), "keyturn.yaml")
	text := strings.ReplaceAll(`store: local
state_dir: DIR/state
replica: host-1
local: {key_file: DIR/seal.key}
issuers:
  - {name: main, revision: 1, url: https://t.example, publish: [{name: file, file: DIR/jwks.json}]}
rings: [{name: web, issuer: main, algorithm: ES256, rotate: "0 3 * * 0"}]
profiles: [{name: p, ring: web, allow: [{uid: 0}], subject: {fixed: me}, audiences: [a]}]
audit: {file: DIR/audit.jsonl}
`, "DIR", filepath.Dir(path))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var asked []string
	cfg := Config{ReadAnchors: func(_ context.Context, _ *configs.Config, replica string) ([]audit.Head, error) {
		asked = append(asked, replica)
		switch replica {
		case "away":
			return nil, fmt.Errorf("ask Vault: %w", keyring.ErrUnavailable)
		case "nobody":
			return nil, nil
		}
		return heads, nil
	}}
	out, errs, code := command(t, cfg, "audit", "verify", "--config", file)
	if wantText(t, out, "whole: 9 records in 2 files", "9 ("); code != 0 || strings.Contains(out, "note:") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	_, errs, code = command(t, cfg, "audit", "verify", "--config", file, "--replica", "nobody", path, path+".1")
	if wantText(t, errs, "nothing is anchored for a replica named nobody"); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if _, errs, code = command(t, cfg, "audit", "verify", "--config", file, "--replica", "away"); code != exitUnreachable {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if got := strings.Join(asked, " "); got != "host-1 nobody away" {
		t.Errorf("asked for %s", got)
	}
}

func TestAuditTail(t *testing.T) {
	path, _ := auditLog(t)
	rewrite(t, path, func(lines []string) []string { return append(lines, `{"time":"2026-`) })
	out, errs, code := command(t, Config{}, "audit", "tail", "-n", "7", path, path+".1")
	if code != 0 || strings.Count(out, "\n") != 8 || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("exit code %d: %q %s", code, out, errs)
	}
	wantText(t, out, "TIME", "forbidden ×37", "1000/42", `"user\x1b]0;x\a allow"`, `a,"b c"`, "j3", "2026-03-01T12:05:00Z", `this line is no record: {"time":"2026-`)
	out, errs, code = command(t, Config{}, "audit", "tail", "-n", "3", "-o", "json", path)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 0 || len(lines) != 2 || !json.Valid([]byte(lines[0])) {
		t.Errorf("exit code %d: %q", code, out)
	}
	wantText(t, errs, "warning: a line that is no record is left out")
	out, errs, code = command(t, Config{}, "audit", "tail", "-n", "3", "-o", "yaml", path)
	if code != 0 || strings.Count(out, "---\n") != 2 || strings.ContainsAny(out, "\x1b\a") {
		t.Errorf("exit code %d: %q %s", code, out, errs)
	}
	wantText(t, out, "---\ntime: ", "\ndecision: allow\n", "\njti: j7\n")
	for _, args := range [][]string{{path, "-n", "-1"}, {path, "-o", "xml"}, {}} {
		if _, errs, code := command(t, Config{}, append([]string{"audit", "tail"}, args...)...); code != exitUsage {
			t.Errorf("%q: exit code %d: %s", args, code, errs)
		}
	}
}

// shared is output that is read while it is written.
type shared struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestAuditFollow: every record is printed once, over rotations, half written
// lines, and a log that is cut.
func TestAuditFollow(t *testing.T) {
	path, _ := auditLog(t)
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs shared
	ended := make(chan int, 1)
	go func() {
		ended <- Execute(ctx, Config{Args: []string{"audit", "tail", "-f", "-n", "6", path + ".1", path}, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs})
	}()
	waitFor := func(s *shared, text string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(s.String(), text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %q in %q", text, s.String())
			}
		}
	}
	waitFor(&out, "j3")
	waitFor(&out, "×37")
	appendRecord := func(jti string) {
		t.Helper()
		if err := l.Append(t.Context(), audit.Record{Event: audit.EventSign, Decision: audit.Allow, JTI: jti}); err != nil {
			t.Fatal(err)
		}
	}
	appendRecord("first")
	waitFor(&out, "first")
	for i := range 3 {
		appendRecord(fmt.Sprint("old", i))
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i+2)); err != nil {
			t.Fatal(err)
		}
		appendRecord(fmt.Sprint("late", i))
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		appendRecord(fmt.Sprint("new", i))
		waitFor(&out, fmt.Sprint("new", i))
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`{"event":"sign","jti":"ha`, "lf\"}\n"} {
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery) // so that it is looked at in between
	}
	waitFor(&out, "half")
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	waitFor(&errs, "was cut while it was followed")
	if _, err := f.WriteString("{\"jti\":\"again\"}\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(&out, "again")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	for _, jti := range []string{"first", "old0", "late0", "new0", "old1", "late1", "new1", "old2", "late2", "new2", "half", "again"} {
		if n := strings.Count(out.String(), "  "+jti+"  "); n != 1 {
			t.Errorf("%s is printed %d times:\n%s", jti, n, out.String())
		}
	}
}
