package audit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestLinePrints(t *testing.T) {
	r := Record{Subject: "a\u0085\u009b2J\x7f\u202e\u2028\u2066\ufeff\U000e0041é東 x", Audiences: []string{"\u200b"}, Reason: "r\n\x1b"}
	line := lineOf(t, r)
	text := strings.TrimSuffix(string(line), "\n")
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("raw at %d: %q", i, text)
	}
	if want := `"a\u0085\u009b2J\u007f\u202e\u2028\u2066\ufeff\udb40\udc41é東 x"`; !strings.Contains(text, want) {
		t.Errorf("line %s, want %s in it", text, want)
	}
	var got Record
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{r.Subject, r.Audiences, r.Reason}, []any{got.Subject, got.Audiences, got.Reason}); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// TestReaderCannotLock: flock(2) takes any descriptor, so whoever ships the log
// away could hold the lock of the file itself.
func TestReaderCannotLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := unix.Flock(int(reader.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	mustAppend(t, l, "j")
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path + ".lock"); err != nil || info.Mode() != 0o600 {
		t.Errorf("lock file %v, %v; want mode 0600", info, err)
	}
}

func TestOpenRefusesLockFiles(t *testing.T) {
	for name, tc := range map[string]struct {
		put  func(path string) error
		hint string
	}{
		"readable": {func(p string) error { return os.WriteFile(p, nil, 0o640) }, "chmod 600"},
		"link":     {func(p string) error { return os.Symlink(p+".real", p) }, "symbolic link"},
		"fifo":     {func(p string) error { return unix.Mkfifo(p, 0o600) }, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := tc.put(path + ".lock"); err != nil {
				t.Fatal(err)
			}
			if l, err := Open(path); err == nil || !strings.Contains(err.Error(), tc.hint) || !strings.Contains(err.Error(), ".lock") {
				t.Errorf("Open = %v, %v; want %q", l, err, tc.hint)
			}
		})
	}
}

// TestReopenKeepsTheLock: a second daemon must not get in by a rotation.
func TestReopenKeepsTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	if second, err := Open(path); err == nil {
		t.Errorf("second Open = %v", second)
	}
}
