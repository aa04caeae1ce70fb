package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// watching is a watch whose lines are kept.
func watching() (*tokenWatch, *strings.Builder) {
	out := new(strings.Builder)
	return &tokenWatch{tokenFile: &tokenFile{path: "f", log: out}}, out
}

func TestTokenIsRenewedAtTwoThirds(t *testing.T) {
	now := time.Now()
	for range 100 {
		w, _ := watching()
		w.renewed(api.SignResponse{Token: "x", ExpiresIn: 300}, now)
		if in := w.due.Sub(now); in < 180*time.Second || in > 200*time.Second || !w.ends.Equal(now.Add(5*time.Minute)) {
			t.Fatalf("due in %s, ends in %s", in, w.ends.Sub(now))
		}
		if wait := w.wait(now); wait != lookAgain {
			t.Fatalf("nothing is looked at for %s", wait)
		}
	}
}

// One line for one cause, however often; what is said holds no token.
func TestTokenWatchTellsCausesOnce(t *testing.T) {
	w, out := watching()
	now := time.Now()
	w.renewed(api.SignResponse{Token: "eyJ.secret.x", ExpiresIn: 300}, now)
	away := unreachablef("there is no socket")
	for i := range 20 {
		w.failed(away, now)
		if in := w.due.Sub(now); in < min(firstRetry<<i, lastRetry) || in > lastRetry*3/2 {
			t.Fatalf("try %d in %s", i, in)
		}
		w.tellExpiry(now)
	}
	now = w.ends
	for range 3 {
		w.failed(away, now)
		w.tellExpiry(now)
	}
	busy := &refusedError{"unavailable: since 1 s (retry in 30s)", api.Problem{Code: api.Unavailable, RetryAfter: 30 * time.Second}}
	w.failed(&exitError{exitUnreachable, busy}, now)
	if in := w.due.Sub(now); in < 30*time.Second {
		t.Errorf("told to come back in 30 s, comes in %s", in)
	}
	w.failed(&exitError{exitUnreachable, &refusedError{"unavailable: since 2 s", busy.problem}}, now)
	w.renewed(api.SignResponse{Token: "eyJ.secret.x", ExpiresIn: 300}, now)
	want := []string{"written; expires at", "not replaced, the old one is good for 5m: there is no socket", "expired at", "not written: unavailable", "fresh again; expires at"}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "keyturn: token f: ") || !strings.Contains(line, want[i]) || strings.Contains(line, "secret") {
			t.Errorf("line %q, want %q", line, want[i])
		}
	}
}

// With little life left it is tried more often.
func TestTokenOfShortLifeIsTriedOften(t *testing.T) {
	w, _ := watching()
	now := time.Now()
	w.renewed(api.SignResponse{Token: "x", ExpiresIn: 8}, now)
	for range 20 {
		w.failed(errors.New("x"), now)
		if in := w.due.Sub(now); in > 3*time.Second {
			t.Fatalf("next try in %s", in)
		}
	}
}

func TestFinal(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want bool
	}{
		{unreachablef("away"), false},
		{fmt.Errorf("write: %w", syscall.ENOSPC), false},
		{fmt.Errorf("write: %w", syscall.EDQUOT), false},
		{fmt.Errorf("write: %w", syscall.ENOENT), true},
		{&refusedError{"forbidden", api.Problem{Code: api.Forbidden}}, true},
		{usagef("path"), true},
	} {
		if got := final(tc.err); got != tc.want {
			t.Errorf("%v: %v", tc.err, got)
		}
	}
}

// A time has come when it has by either clock.
func TestReached(t *testing.T) {
	now := time.Now()
	due := now.Add(time.Minute)
	if reached(now, due) || !reached(due, due) || !reached(now.Round(0).Add(time.Hour), due) || !reached(now, time.Time{}) {
		t.Error("one of the clocks does not count")
	}
}

// TestTokenFolder: where others could exchange the file, that is told, once.
func TestTokenFolder(t *testing.T) {
	type folder struct {
		uid, gid int
		mode     os.FileMode
		want     string
	}
	own, nobody, group := os.Geteuid(), 4242, os.Getegid()
	if own == 0 {
		group = nobody // root's own group is nobody else's
	}
	folders := map[string]folder{
		"ours":         {own, group, 0o755, ""},
		"ours, sticky": {own, group, 0o777 | os.ModeSticky, ""},
		"everybody's":  {own, group, 0o777, "chmod go-w"},
		"a group's":    {own, group, 0o770, "chmod g-w"},
	}
	if own == 0 { // who alone gives folders away
		folders["another's"] = folder{nobody, own, 0o700, "run chown 0 on it"}
		folders["another's, sticky"] = folder{nobody, own, 0o700 | os.ModeSticky, "run chown 0 on it"}
	}
	for name, tc := range folders {
		dir := filepath.Join(t.TempDir(), "folder")
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, tc.uid, tc.gid), os.Chmod(dir, tc.mode)); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		f := &tokenFile{client: client{path: filepath.Join(dir, "none")}, path: filepath.Join(dir, "token"), mode: 0o600, log: &said}
		for range 2 {
			if _, err := f.renew(t.Context()); !strings.Contains(err.Error(), "there is no socket") {
				t.Errorf("%s: %v", name, err)
			}
		}
		lines := strings.Count(said.String(), "into the folder "+dir)
		if (lines == 1) != (tc.want != "") || lines > 1 || !strings.Contains(said.String(), tc.want) {
			t.Errorf("%s: %q, want %q once", name, said.String(), tc.want)
		}
	}
}
