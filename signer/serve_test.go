package signer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// serving is a sign socket whose end the test decides.
type serving struct {
	path string
	stop context.CancelFunc
	done chan error
}

func (w *world) serve() serving {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "sign.sock")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s := serving{path, cancel, make(chan error, 1)}
	go func() { s.done <- w.s.Serve(ctx, ln, "default") }()
	return s
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
	w := newWorld(t, keyring.ES256).mine().start().ready()
	s := w.serve()
	const body = `{"profile":"p-ES256","subject":"u"}`
	request := "POST /v1/sign HTTP/1.1\r\nHost: k\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body
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
	if took := s.ended(t); took > drainTime {
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

// A caller that connected and says nothing holds the end up for drainTime at most.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ES256).mine().start().ready()
	s := w.serve()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /v1/sign HTTP/1.1\r\nHost: k\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	s.stop()
	if took := s.ended(t); took > drainTime+2*time.Second {
		t.Errorf("drained in %s", took)
	}
	if !strings.Contains(w.log.String(), "sent nothing") {
		t.Errorf("the log does not say why it took so long: %s", w.log)
	}
}

// A long batch is answered in time: what is not signed by then is unavailable.
func TestDrainOfABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ES256).mine()
	kid := w.snap.Keys[0].JWK.Kid
	signing := make(chan struct{}, 1)
	w.keys.halfs[kid] = half{w.keys.halfs[kid].(half).key, func() error {
		select {
		case signing <- struct{}{}:
		default:
		}
		time.Sleep(20 * time.Millisecond)
		return nil
	}}
	w.start().ready()
	s := w.serve()
	c := dial(t, s.path)
	type answer struct {
		api.BatchResponse
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		body := `{"requests":[` + strings.Repeat(`{"profile":"p-ES256","subject":"u"},`, 999) + `{"profile":"p-ES256","subject":"u"}]}`
		resp, err := c.http.Post("http://keyturn/v1/sign/batch", "application/json", strings.NewReader(body))
		if a.err = err; err == nil {
			a.err = json.NewDecoder(resp.Body).Decode(&a.BatchResponse)
			resp.Body.Close()
		}
		answers <- a
	}()
	<-signing
	s.stop()
	took := s.ended(t)
	got := <-answers
	if took > drainTime || got.err != nil || len(got.Results) != 1000 {
		t.Fatalf("drained in %s, %d results, %v", took, len(got.Results), got.err)
	}
	if got.Results[0].SignResponse == nil || got.Results[999].Error == nil || got.Results[999].Error.Code != api.Unavailable {
		t.Errorf("first %+v, last %+v", got.Results[0], got.Results[999])
	}
}

// A listener that breaks is an error, not a quiet end.
func TestServeReportsABrokenListener(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.s.Serve(t.Context(), ln, "default") }()
	ln.Close()
	if err := <-done; err == nil || !strings.Contains(err.Error(), `sign socket "default"`) {
		t.Errorf("Serve = %v", err)
	}
}
