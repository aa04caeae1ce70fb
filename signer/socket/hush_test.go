package socket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair is a Unix connection seen from both ends, and the listener.
func pair(t *testing.T) (server, client net.Conn, ln *net.UnixListener) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if client, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); client.Close(); server.Close() })
	return newConn(server), client, l.(*net.UnixListener)
}

// What was sent before is read, and who writes afterwards is told.
func TestHushKeepsWhatWasSent(t *testing.T) {
	server, client, _ := pair(t)
	if _, err := io.WriteString(client, "sent"); err != nil {
		t.Fatal(err)
	}
	var q quiet
	q.note(server, http.StateNew)
	done := make(chan struct{})
	go func() { defer close(done); q.hush(t.Context()) }()
	got, err := io.ReadAll(server) // to the end that the hush makes
	if string(got) != "sent" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(client, "too late"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write after the end: %v", err)
	}
	select {
	case <-done:
		t.Error("the hush did not wait for a connection that is still open")
	default:
	}
	q.note(server, http.StateClosed)
	<-done
}

// A connection that becomes idle later is hushed then, and one on which a
// request has begun is left alone; the wait is bounded.
func TestHushOfOthers(t *testing.T) {
	busy, busyClient, _ := pair(t)
	later, laterClient, _ := pair(t)
	var q quiet
	for _, c := range []net.Conn{busy, later} {
		q.note(c, http.StateNew)
		q.note(c, http.StateActive)
	}
	q.hush(t.Context())
	for _, c := range []net.Conn{busyClient, laterClient} {
		if _, err := io.WriteString(c, "more"); err != nil {
			t.Errorf("a request that has begun: %v", err)
		}
	}
	q.note(later, http.StateIdle)
	if _, err := io.WriteString(laterClient, "next"); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a write on a connection that became idle: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	q.hush(ctx) // later stays open: this returns all the same
}

func TestQueued(t *testing.T) {
	_, _, ln := pair(t)
	if queued(ln) {
		t.Error("nobody waits")
	}
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !queued(ln) {
		t.Error("somebody waits")
	}
	ln.Close()
	if queued(ln) {
		t.Error("a listener that is closed has no queue")
	}
}
