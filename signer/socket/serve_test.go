package socket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
)

// serving is a socket whose end the test decides.
type serving struct {
	path string
	stop context.CancelFunc
	done chan error
	log  *bytes.Buffer // to be read when it has ended
}

func serve(t *testing.T, h http.HandlerFunc) serving {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := serving{path, cancel, make(chan error, 1), &bytes.Buffer{}}
	go func() {
		s.done <- Serve(ctx, ln, Config{Name: "default", Handler: h, Logger: slog.New(slog.NewTextHandler(s.log, nil))})
	}()
	return s
}

// echo answers with what it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = w.Write(body)
}

// ended waits for the end and returns how long it took.
func (s serving) ended(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("Serve = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the socket does not end")
	}
	return time.Since(began)
}

// Under load, with and without kept connections: from the moment of the end on
// nobody can connect, and whoever had connected got an answer.
func TestDrainAnswersEverybody(t *testing.T) {
	t.Parallel()
	s := serve(t, echo)
	const body = "hello"
	request := "POST / HTTP/1.1\r\nHost: k\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body
	var answered, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		keep := i%2 == 0
		wg.Go(func() {
			var conn net.Conn
			var in *bufio.Reader
			for {
				if conn == nil {
					var err error
					if conn, err = net.Dial("unix", s.path); err != nil {
						refused.Add(1)
						return // gone: nothing was asked
					}
					in = bufio.NewReader(conn)
				}
				if _, err := io.WriteString(conn, request); errors.Is(err, syscall.EPIPE) {
					refused.Add(1)
					return // nobody reads any more: nothing was asked
				} else if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Errorf("no answer: %v", err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				if resp.StatusCode != 200 || err != nil {
					t.Errorf("%d, %v", resp.StatusCode, err)
				}
				answered.Add(1)
				if resp.Close || !keep {
					conn.Close()
					conn = nil
				}
			}
		})
	}
	for answered.Load() < 500 && !t.Failed() {
		time.Sleep(time.Millisecond)
	}
	s.stop()
	if took := s.ended(t); took > DrainTime {
		t.Errorf("drained in %s", took)
	}
	wg.Wait()
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket file is still there: %v", err)
	}
	if refused.Load() == 0 {
		t.Error("nobody saw the end")
	}
}

// A caller that connected and says nothing holds the end up for DrainTime at most.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	s := serve(t, echo)
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	s.stop()
	if took := s.ended(t); took > DrainTime+2*time.Second {
		t.Errorf("drained in %s", took)
	}
	if !strings.Contains(s.log.String(), "sent nothing") {
		t.Errorf("the log does not say why it took so long: %s", s.log)
	}
}

// held is a listener whose connections are slow to be read after their first
// request, as where this process is kept from running.
type held struct {
	*net.UnixListener
	goOn chan struct{}
}

func (h held) Accept() (net.Conn, error) {
	c, err := h.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &heldConn{UnixConn: c, goOn: h.goOn}, nil
}

type heldConn struct {
	*net.UnixConn
	goOn  chan struct{}
	reads atomic.Int64
}

func (c *heldConn) Read(p []byte) (int, error) {
	if len(p) > 1 && c.reads.Add(1) > 1 {
		<-c.goOn
	}
	return c.UnixConn.Read(p)
}

// A request that was sent on an idle connection before the end, and not read
// yet, is answered; the answer says that it is the last one.
func TestDrainAnswersWhatTheKernelHolds(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	h := held{ln.(*net.UnixListener), make(chan struct{})}
	ctx, stop := context.WithCancel(t.Context())
	s := serving{path: path, stop: stop, done: make(chan error, 1)}
	go func() { s.done <- Serve(ctx, h, Config{Name: "default", Handler: http.HandlerFunc(echo)}) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for i, want := range []string{"first", "second"} {
		if err := newRequest(t, want).Write(conn); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			stop()
			time.AfterFunc(3*lastCall, func() { close(h.goOn) }) // Shutdown would have come by then
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("no answer to the %s: %v", want, err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != want || err != nil || resp.Close != (i == 1) {
			t.Errorf("the %s: %q, %v, the connection ends with it: %t", want, body, err, resp.Close)
		}
	}
	s.ended(t)
}

// A handler is told that the end is near in time to answer before it.
func TestDrainStopsWork(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		_, _ = io.WriteString(w, "half of it")
	})
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: k\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	s.stop()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "half of it" || err != nil || !resp.Close {
		t.Errorf("%q, %v, the connection ends with it: %t", body, err, resp.Close)
	}
	if took := s.ended(t); took > DrainTime {
		t.Errorf("drained in %s", took)
	}
}

// A listener that breaks is an error, not a quiet end.
func TestServeReportsABrokenListener(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), ln, Config{Name: "default", Handler: http.NotFoundHandler()}) }()
	ln.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), `sign socket "default"`) {
		t.Errorf("Serve = %v", err)
	}
}
