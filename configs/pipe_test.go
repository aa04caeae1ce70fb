package configs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestReadsPipes: of a shell's <(…), and FIFOs whose writer comes late; what is
// empty is told at once, and not waited for.
func TestReadsPipes(t *testing.T) {
	const doc = "store: local\n"
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	go func() {
		time.Sleep(5 * pipePause)
		_ = os.WriteFile(fifo, []byte(doc), 0)
	}()
	if got, err := readFile(fifo); err != nil || string(got) != doc {
		t.Errorf("a late writer: %q, %v", got, err)
	}
	for _, content := range []string{doc, ""} {
		r, w, err := os.Pipe()
		must(t, err)
		_, err = w.WriteString(content)
		must(t, errors.Join(err, w.Close()))
		began := time.Now()
		if got, err := readFile(fmt.Sprintf("/dev/fd/%d", r.Fd())); err != nil || string(got) != content || time.Since(began) > pipeTime/2 {
			t.Errorf("a pipe with %q: %q, %v", content, got, err)
		}
		must(t, r.Close())
	}
}

// TestPipesAreBounded: nobody waits for ever for the other end of a FIFO, nor for
// what it does not write.
func TestPipesAreBounded(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	must(t, syscall.Mkfifo(fifo, 0o600))
	for _, name := range []string{"no writer", "a silent writer"} {
		done := make(chan error, 1)
		go func() { _, err := readWithin(fifo, 5*pipePause); done <- err }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "is a pipe, and no whole configuration came through it") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s is waited for", name)
		}
		w, err := os.OpenFile(fifo, os.O_RDWR, 0)
		must(t, err)
		t.Cleanup(func() { _ = w.Close() })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
