package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/client/clienttest"
)

// asKeyturn makes the test's binary keyturn itself, for the tests that watch it
// from outside.
const asKeyturn = "KEYTURN_TEST_AS_KEYTURN"

func TestMain(m *testing.M) {
	if os.Getenv(asKeyturn) != "" {
		main()
	}
	os.Exit(m.Run())
}

// said collects what a process says.
type said struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestDumpsOfCommands: every command that lives on tells what it does when it is
// asked to dump itself, without a word of memory: these hold tokens.
func TestDumpsOfCommands(t *testing.T) {
	dir := t.TempDir()
	log, file := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "token")
	if err := os.WriteFile(log, []byte(`{"event":"sign"}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	kt := clienttest.New(t, clienttest.Config{})
	gone := filepath.Join(dir, "gone.sock")
	for name, tc := range map[string]struct {
		args []string
		busy string // what it says when it is at work; "" for what says nothing
	}{
		"token": {[]string{"token", "--watch", "--profile", "p", "--socket", kt.Socket(), "--out", file}, "written; expires at"},
		"tail":  {[]string{"audit", "tail", "-f", log}, "sign"},
		"sign":  {[]string{"sign", "--profile", "p", "--socket", gone, "--wait", "1m"}, ""},
	} {
		for _, sig := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT} {
			t.Run(name+" "+sig.String(), func(t *testing.T) {
				out := new(said)
				cmd := exec.CommandContext(t.Context(), os.Args[0], tc.args...)
				cmd.Env = append(os.Environ(), asKeyturn+"=1", "GOTRACEBACK=crash")
				cmd.Stdout, cmd.Stderr = out, out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(300 * time.Millisecond)
				for began := time.Now(); !strings.Contains(out.String(), tc.busy); time.Sleep(10 * time.Millisecond) {
					if time.Since(began) > 20*time.Second {
						t.Fatalf("it says\n%s", out)
					}
				}
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 2 {
					t.Errorf("it ends with %v", err)
				}
				dump := out.String()
				if !strings.Contains(dump, "keyturn: signal: "+sig.String()) || !strings.Contains(dump, "cli.Execute(...)") || strings.Count(dump, "goroutine 1 [") != 1 {
					t.Errorf("it says\n%s", dump)
				}
				if word := regexp.MustCompile(`\([^)\n]*0x[0-9a-f]+[^)\n]*\)|\br(ax|ip|sp|15)\b|eyJ`).FindString(dump); word != "" {
					t.Errorf("the dump tells %q", word)
				}
			})
		}
	}
}
