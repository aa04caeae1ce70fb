package gate

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
)

// settle waits until the server knows of each connection that it is idle, and
// has closed those that were told to end: both are a little later than what the
// clients see.
func (l *Conns) settle() {
	for {
		busy := 0
		l.mu.Lock()
		for c := range l.conns {
			if c.ending || c.idleSince() == 0 {
				busy++
			}
		}
		l.mu.Unlock()
		if busy == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestConnsServe: an HTTP server on it knows the caller, closes with both
// halves, and keeps the queue of those who had connected.
func TestConnsServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	must(t, err)
	l := NewConns(config(ln, 64, 2))
	f, err := l.File()
	must(t, err)
	rest, err := net.FileListener(f)
	must(t, errors.Join(err, f.Close(), rest.Close()))
	srv := &http.Server{
		ConnContext: unixsock.ConnContext, ReadHeaderTimeout: time.Second,
		ConnState: func(c net.Conn, s http.ConnState) { c.(*Conn).Idle(s == http.StateNew || s == http.StateIdle) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if peer, ok := unixsock.PeerFrom(r.Context()); !ok || !peer.HasUID(uint32(os.Geteuid())) {
				t.Errorf("the caller is %+v, %v", peer, ok)
			}
			_, _ = io.WriteString(w, "ok")
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	for range 20 { // each leaves an idle connection behind
		c := dial(t, path)
		_, err := io.Copy(c, strings.NewReader("GET / HTTP/1.1\r\nHost: d\r\n\r\n"))
		must(t, err)
		if status, body := answer(t, c); status != 200 || body != "ok" {
			t.Fatalf("answered %d %q", status, body)
		}
		l.settle()
	}
	c := dial(t, path) // too much for the server: it answers and closes while the client sends
	_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 10000000\r\n\r\nmore")
	must(t, err)
	if status, _ := answer(t, c); status != 200 {
		t.Errorf("answered %d", status)
	}
	l.settle() // it has closed that one
	must(t, srv.Close())
	<-done
}
