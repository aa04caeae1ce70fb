package loopback

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func reserve(t *testing.T) *Port {
	t.Helper()
	p, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Release(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

// TestReserve: what was reserved can be listened on, is nobody else's until it
// is released, and is not among those that the kernel gives out.
func TestReserve(t *testing.T) {
	text, err := os.ReadFile(rangeFile)
	if err != nil {
		t.Fatal(err)
	}
	first, err := below(string(text))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for range 200 {
		p := reserve(t)
		if seen[p.number] || p.number < lowest || p.number >= first {
			t.Fatalf("port %d, after %v", p.number, seen)
		}
		seen[p.number] = true
		ln, err := net.Listen("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRelease(t *testing.T) {
	p := reserve(t)
	if _, err := try(p.number); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("a reserved port was given out again: %v", err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	again, err := try(p.number)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Fatal(err)
	}
}

// TestListened: a port on which somebody listens who knows nothing of this
// package is passed over.
func TestListened(t *testing.T) {
	p := reserve(t)
	ln, err := net.Listen("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := try(p.number); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("a port in use was reserved: %v", err)
	}
}

// TestAcrossProcesses: the test binary runs itself once more, as another process
// that holds a port.
func TestAcrossProcesses(t *testing.T) {
	if os.Getenv("KEYTURN_TEST_HOLD") != "" {
		p := reserve(t)
		_, _ = os.Stdout.WriteString("port " + strconv.Itoa(p.number) + "\n")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAcrossProcesses$")
	cmd.Env = append(os.Environ(), "KEYTURN_TEST_HOLD=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(strings.TrimPrefix(strings.TrimSpace(line), "port "))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := try(number); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that another process holds was given out: %v", err)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	p, err := try(number)
	if err != nil {
		t.Fatalf("a port of a process that has ended: %v", err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestBelow(t *testing.T) {
	for text, want := range map[string]int{"32768\t60999\n": 32768, "10001 10002": 10001} {
		if got, err := below(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a b", "32768", "1024\t65535\n", "10000 20000"} {
		if got, err := below(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
