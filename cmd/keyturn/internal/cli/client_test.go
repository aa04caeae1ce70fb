package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

// TestSignWaits: a daemon that comes while sign waits is met.
func TestSignWaits(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	var served sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"token":"a.b.c","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}`)
	})}
	served.Go(func() {
		time.Sleep(200 * time.Millisecond)
		ln, err := net.Listen("unix", socket)
		if err != nil {
			t.Error(err)
			return
		}
		_ = srv.Serve(ln) // until Close
	})
	defer served.Wait()
	defer srv.Close()
	code, stdout, stderr := run("", "sign", "--profile", "p", "--socket", socket, "--wait", "30s")
	if code != 0 || stdout != "a.b.c\n" || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

// TestWordsOfTheSockets: what the sockets refuse with tells users of the command
// line of commands, but for those who asked a socket of the other kind.
func TestWordsOfTheSockets(t *testing.T) {
	texts := 0
	for _, pattern := range []string{"admin/*.go", "signer/*.go", "signer/*/*.go"} {
		files, err := filepath.Glob("../../../../" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			doc, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(string(doc), "\n") {
				if !strings.Contains(line, "NewProblem(") && !strings.Contains(line, "Invalid(") || strings.Contains(line, "a sign socket with") {
					continue
				}
				said := commands.Replace(line)
				if said != line {
					texts++
				}
				if strings.Contains(said, "GET /v1") || strings.Contains(said, "?issuer") {
					t.Errorf("%s: %s", file, strings.TrimSpace(line))
				}
			}
		}
	}
	if texts < 8 {
		t.Errorf("only %d texts are found", texts)
	}
}
