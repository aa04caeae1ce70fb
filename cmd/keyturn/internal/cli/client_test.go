package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Who is kept out of a socket is told what lets him in.
func TestPermissionDenied(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		mode os.FileMode
		want string
	}{
		"group.sock": {0o660, "belongs to group "},
		"owner.sock": {0o600, "is open to its owner (uid "},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tc.mode); err != nil {
			t.Fatal(err)
		}
		err := client{path: path}.unreached(fmt.Errorf("dial: %w", syscall.EACCES))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "permission denied at "+path) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if got := exitCode(err); got != exitFailed {
			t.Errorf("%s: exit code %d: trying again mends nothing", name, got)
		}
	}
}

func TestExitCode(t *testing.T) {
	for want, err := range map[int]error{
		0:               nil,
		exitFailed:      errors.New("any"),
		exitUnreachable: fmt.Errorf("load: %w", keyring.ErrUnavailable),
		exitUsage:       fmt.Errorf("sign: %w", usagef("%w", fs.ErrNotExist)),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("exitCode(%v) = %d, want %d", err, got, want)
		}
	}
}

// A quoted word comes out of a shell as it went in.
func TestQuote(t *testing.T) {
	words := []string{"plain", "/run/x.sock", "", "a b", "it's", `"$HOME" \ ` + "`id`", "*", "~", "a\nb", "é", "-n", "a;b", "{a,b}"}
	for _, word := range words {
		out, err := exec.Command("/bin/sh", "-c", "printf %s "+quote(word)).Output()
		if err != nil || string(out) != word {
			t.Errorf("quote(%q) = %s, the shell makes %q of it (%v)", word, quote(word), out, err)
		}
	}
}

func TestProgram(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "keyturn")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Program: "keyturn"}
	if got := cfg.program(); got != "keyturn" {
		t.Errorf("found on PATH: %s", got)
	}
	cfg.Program = bin
	if got := cfg.program(); got != bin {
		t.Errorf("not on PATH: %s, want %s", got, bin)
	}
	t.Setenv("PATH", dir)
	if got := cfg.program(); got != "keyturn" {
		t.Errorf("on PATH: %s, want keyturn", got)
	}
}

func TestRough(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "0s", 1499 * time.Millisecond: "1s", 90 * time.Second: "1m30s", time.Hour: "1h", 3*time.Hour + 2*time.Minute: "3h2m", 60 * time.Hour: "2d", -time.Minute: "-1m",
	} {
		if got := rough(in); got != want {
			t.Errorf("rough(%d) = %s, want %s", in, got, want)
		}
	}
}
