package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustOpen(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func mustAppend(t *testing.T, l *Log, jti string) {
	t.Helper()
	if err := l.Append(t.Context(), Record{Event: EventSign, Decision: Allow, JTI: jti}); err != nil {
		t.Fatal(err)
	}
}

// jtis reads a log back: every line must be whole, but the ones that torn names.
func jtis(t *testing.T, path string, torn ...string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Errorf("the log ends in the middle of a line: %q", data[max(0, len(data)-80):])
	}
	var out []string
	for line := range bytes.Lines(data) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			if len(torn) > 0 && strings.TrimSuffix(string(line), "\n") == torn[0] {
				torn = torn[1:]
				continue
			}
			t.Errorf("line %q: %v", line, err)
			continue
		}
		if r.Event != EventTorn {
			out = append(out, r.JTI)
		}
	}
	if len(torn) > 0 {
		t.Errorf("the log lost %q", torn)
	}
	return out
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	old := syscall.Umask(0)
	l := mustOpen(t, path)
	syscall.Umask(old)
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	records := []Record{
		{
			Time: at, Event: EventSign, Decision: Allow, Socket: "default", UID: 1000, GID: 100, PID: 42,
			Profile: "orders", Issuer: "main", Ring: "web", Kid: "k1", JTI: "j1", Subject: "user-<1>",
			Audiences: []string{"api://orders"}, ExpiresAt: at.Add(time.Minute), ClaimsSHA256: "ab",
		},
		{Time: at, Event: EventSign, Decision: Deny, Code: "forbidden", Socket: "default", Profile: "x", Reason: "two\nlines"},
	}
	for _, r := range records {
		if err := l.Append(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-03-01T11:00:00.123456789Z","event":"sign","decision":"allow","socket":"default","uid":1000,"gid":100,"pid":42,` +
		`"profile":"orders","issuer":"main","ring":"web","kid":"k1","jti":"j1","subject":"user-<1>","audiences":["api://orders"],` +
		`"expires_at":"2026-03-01T11:01:00.123456789Z","claims_sha256":"ab"}` + "\n" +
		`{"time":"2026-03-01T11:00:00.123456789Z","event":"sign","decision":"deny","code":"forbidden","socket":"default","uid":0,"gid":0,"pid":0,` +
		`"profile":"x","reason":"two\nlines"}` + "\n"
	link := regexp.MustCompile(`,"chain":"[0-9A-Z]{16}","seq":[12],"prev":"[0-9a-f]{64}","hash":"[0-9a-f]{64}"}`)
	if diff := cmp.Diff(want, link.ReplaceAllString(string(got), "}")); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestAppendFillsInTheTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	before := time.Now()
	mustAppend(t, mustOpen(t, path), "j")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Time.Before(before.Round(0)) || r.Time.After(time.Now()) || r.Time.Location() != time.UTC {
		t.Errorf("time %v, want now in UTC", r.Time)
	}
}

func TestOpenAppendsToWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for i := range 3 {
		l := mustOpen(t, path)
		mustAppend(t, l, fmt.Sprint(i))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, jtis(t, path)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

// TestOpenAfterACrash: a process died, or the power failed, in mid-write.
func TestOpenAfterACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	const half = `{"time":"2026-03-01T11:00:`
	if err := os.WriteFile(path, []byte(`{"jti":"before"}`+"\n"+half), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	mustAppend(t, l, "after")
	mustAppend(t, l, "later")
	if diff := cmp.Diff([]string{"before", "after", "later"}, jtis(t, path, half)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if n := wholeLog(t, path); n != 3 { // with the one that tells of the half
		t.Errorf("%d records", n)
	}
}

// TestOpenAfterALostNewline: what a write lost was nothing but its last byte. The
// record stays one, or it would stand there twice: as such, and as the damage
// that the next one tells of.
func TestOpenAfterALostNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	mustAppend(t, l, "before")
	mustAppend(t, l, "last")
	want, err := l.Head(t.Context())
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-1)
	}
	if err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, path)
	if h, err := l.Head(t.Context()); err != nil || !h.Same(want) {
		t.Errorf("head %+v, %v; want %+v", h, err, want)
	}
	mustAppend(t, l, "after")
	mustAppend(t, l, "later")
	if diff := cmp.Diff([]string{"before", "last", "after", "later"}, jtis(t, path)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if n := wholeLog(t, path); n != 4 {
		t.Errorf("%d records", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	type refused struct {
		put  func(path string) error
		want error
		hint string
	}
	files := map[string]refused{
		"link to a file": {func(p string) error {
			return errors.Join(os.WriteFile(p+".real", nil, 0o600), os.Symlink(p+".real", p))
		}, ErrUnsafe, "name the file itself"},
		"dangling link":     {func(p string) error { return os.Symlink(p+".real", p) }, ErrUnsafe, "symbolic link"},
		"fifo":              {func(p string) error { return unix.Mkfifo(p, 0o600) }, ErrUnsafe, "not a regular file"},
		"directory":         {func(p string) error { return os.Mkdir(p, 0o700) }, unix.EISDIR, "directory"},
		"others may write":  {func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o606)) }, ErrUnsafe, "chmod go-w"},
		"group may write":   {func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o660)) }, ErrUnsafe, "chmod go-w"},
		"missing directory": {func(p string) error { return os.Remove(filepath.Dir(p)) }, fs.ErrNotExist, "create it"},
	}
	if os.Geteuid() == 0 { // who alone gives files away
		files["another's"] = refused{func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o600), os.Chown(p, 4711, 4711))
		}, ErrUnsafe, "belongs to uid 4711"}
	}
	for name, tc := range files {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log", "audit.jsonl")
			if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), tc.put(path)); err != nil {
				t.Fatal(err)
			}
			l, err := Open(path)
			if err == nil {
				_ = l.Close()
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.hint) {
				t.Errorf("Open = %v, want %v with %q", err, tc.want, tc.hint)
			}
			if _, err := os.Stat(path + ".real"); name == "dangling link" && err == nil {
				t.Error("Open created the file behind the link")
			}
		})
	}
}

func TestOpenTakesAFileThatAGroupReads(t *testing.T) { // logrotate: create 0640
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, mustOpen(t, path), "j")
}

func TestOneWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	if second, err := Open(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second Open = %v, %v; want ErrInUse", second, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, mustOpen(t, path), "next")
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	mustAppend(t, l, "1")
	if err := l.Reopen(); err != nil { // nothing was rotated
		t.Fatalf("Reopen of the same file = %v", err)
	}
	mustAppend(t, l, "2")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "3") // before the signal: into the renamed file
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "4")
	if diff := cmp.Diff([]string{"1", "2", "3"}, jtis(t, path+".1")); diff != "" {
		t.Errorf("rotated file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"4"}, jtis(t, path)); diff != "" {
		t.Errorf("new file (-want +got):\n%s", diff)
	}
	mustOpen(t, path+".1") // its lock was given back
}

func TestReopenThatFailsKeepsTheOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	if err := errors.Join(os.Rename(path, path+".1"), os.Symlink("/nowhere", path)); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); !errors.Is(err, ErrUnsafe) {
		t.Errorf("Reopen = %v, want ErrUnsafe", err)
	}
	mustAppend(t, l, "1")
	if diff := cmp.Diff([]string{"1"}, jtis(t, path+".1")); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func TestClosed(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "audit.jsonl"))
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatalf("Close = %v", err)
	}
	if err := l.Append(t.Context(), Record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append = %v, want ErrClosed", err)
	}
	if err := l.Reopen(); !errors.Is(err, ErrClosed) {
		t.Errorf("Reopen = %v, want ErrClosed", err)
	}
}

func TestConcurrentAppendAndReopen(t *testing.T) {
	const writers, each = 8, 200
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Append(context.Background(), Record{JTI: fmt.Sprintf("%d-%d", w, i), Reason: strings.Repeat("x", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	const rotations = 5
	for i := range rotations {
		if err := errors.Join(os.Rename(path, fmt.Sprintf("%s.%d", path, i)), l.Reopen()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	seen := map[string]bool{}
	for i := range rotations {
		for _, jti := range jtis(t, fmt.Sprintf("%s.%d", path, i)) {
			seen[jti] = true
		}
	}
	for _, jti := range jtis(t, path) {
		seen[jti] = true
	}
	var paths []string
	for i := range rotations {
		paths = append(paths, fmt.Sprintf("%s.%d", path, i))
	}
	if n := wholeLog(t, append(paths, path)...); n != writers*each {
		t.Errorf("%d records in the chain", n)
	}
	if len(seen) != writers*each {
		t.Errorf("%d records, want %d", len(seen), writers*each)
	}
}

func TestAppendAndTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Append(ended, Record{JTI: "at once"}); err != nil {
		t.Errorf("Append that need not wait = %v", err)
	}
	l.turn <- struct{}{} // a writer hangs in the disk
	if err := l.Append(ended, Record{JTI: "waits"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Append that would wait = %v, want context.Canceled", err)
	}
	<-l.turn
	mustAppend(t, l, "after")
	if diff := cmp.Diff([]string{"at once", "after"}, jtis(t, path)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}
