package socket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pipe is a conn and its caller's end.
func pipe(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	server, client, _ := pair(t)
	return server.(*conn), client
}

// soon runs what must not take long; the limit is for a machine that is busy.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: it still waits", what)
	}
}

// A read that waits beside a handler ends when its deadline is moved into the
// past, as net/http ends it, whether it waits here or in the kernel already.
func TestConnEndsAWaitingRead(t *testing.T) {
	for name, wait := range map[string]time.Duration{"here": 0, "in the kernel": 2 * patience} {
		t.Run(name, func(t *testing.T) {
			c, client := pipe(t)
			got := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 1))
				got <- err
			}()
			time.Sleep(wait) // the one case or the other; both have to hold
			soon(t, name, func() {
				if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
					t.Error(err)
				}
				if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Read = %v", err)
				}
			})
			// And what comes afterwards is read.
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(client, "next"); err != nil {
				t.Fatal(err)
			}
			soon(t, name, func() {
				buf := make([]byte, 16)
				if n, err := c.Read(buf); err != nil || string(buf[:n]) != "next" {
					t.Errorf("Read = %q, %v", buf[:n], err)
				}
			})
		})
	}
}

func TestConnReadsOneByteAfterPatience(t *testing.T) {
	c, client := pipe(t)
	if _, err := io.WriteString(client, "x"); err != nil {
		t.Fatal(err)
	}
	soon(t, "a byte", func() {
		buf := make([]byte, 1)
		if n, err := c.Read(buf); n != 1 || err != nil || buf[0] != 'x' {
			t.Errorf("Read = %q, %v", buf[:n], err)
		}
	})
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	soon(t, "the end", func() {
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("Read = %d, %v, want EOF", n, err)
		}
	})
}

func TestConnCloseEndsAWaitingRead(t *testing.T) {
	c, _ := pipe(t)
	got := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 1))
		got <- err
	}()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	soon(t, "a closed connection", func() {
		if err := <-got; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read = %v", err)
		}
	})
}

// Deadlines hold though they are handed on late: within slack of what was asked.
func TestConnDeadlines(t *testing.T) {
	c, _ := pipe(t)
	for range 3 { // each a little later than the last one
		if err := c.SetDeadline(time.Now().Add(slack + 200*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	soon(t, "read", func() {
		if _, err := c.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v", err)
		}
	})
	if err := c.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	soon(t, "write", func() {
		if _, err := c.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v", err)
		}
	})
	if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 8))
		got <- err
	}()
	soon(t, "a deadline that comes nearer while somebody reads", func() {
		if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Error(err)
		}
		if err := <-got; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v", err)
		}
	})
}

// What net/http promises holds over a conn: a handler whose caller hangs up is
// told, a request sent ahead is answered, and a slow one ends at its deadline.
func TestConnUnderHTTP(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan struct{}, 1)
	srv := NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) == "wait" {
			<-r.Context().Done()
			told <- struct{}{}
			return
		}
		_, _ = w.Write(body)
	}), nil)
	srv.ReadHeaderTimeout, srv.ReadTimeout = 1500*time.Millisecond, 1500*time.Millisecond
	done := make(chan error, 1)
	go func() { done <- srv.Serve(&drainer{Listener: ln}) }()
	t.Cleanup(func() {
		if err := errors.Join(srv.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
		<-done
	})
	dialed := func() net.Conn {
		c, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ask := func(c net.Conn, bodies ...string) {
		var text strings.Builder
		for _, b := range bodies {
			_ = newRequest(t, b).Write(&text)
		}
		if _, err := io.WriteString(c, text.String()); err != nil {
			t.Fatal(err)
		}
	}

	gone := dialed()
	ask(gone, "wait")
	_ = gone.Close()
	soon(t, "a caller who hangs up", func() { <-told })

	ahead := dialed()
	ask(ahead, "one", "two", "three")
	soon(t, "three at once", func() {
		in := bufio.NewReader(ahead)
		for _, want := range []string{"one", "two", "three"} {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Error(err)
				return
			}
			if body, err := io.ReadAll(resp.Body); string(body) != want || err != nil {
				t.Errorf("%q, %v, want %q", body, err, want)
			}
		}
	})

	slow := dialed()
	if _, err := io.WriteString(slow, "POST / HTTP/1.1\r\nHost: k\r\nContent-Length: 9\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	soon(t, "a slow body", func() { _, _ = io.ReadAll(slow) })
}

func newRequest(t *testing.T, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest("POST", "http://keyturn/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What net/http asks for while an earlier deadline is on its way to the kernel
// is what holds in the end: the earlier one must not arrive after it.
func TestDeadlineAskedForMeanwhile(t *testing.T) {
	far, passed := time.Now().Add(time.Hour), time.Unix(1, 0)
	t.Run("while the kernel is told", func(t *testing.T) {
		var d deadline
		var kernel atomic.Pointer[time.Time]
		telling, goOn := make(chan struct{}), make(chan struct{})
		d.ask(far)
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			first <- d.tell(func(at time.Time) error {
				close(telling)
				<-goOn
				kernel.Store(&at)
				return nil
			})
		}()
		<-telling
		d.ask(passed)
		go func() {
			second <- d.tell(func(at time.Time) error { kernel.Store(&at); return nil })
		}()
		select {
		case err := <-second:
			t.Errorf("it was told beside another: %v", err)
			second <- err
		case <-time.After(50 * time.Millisecond):
		}
		close(goOn)
		soon(t, "tell", func() {
			if err := errors.Join(<-first, <-second); err != nil {
				t.Error(err)
			}
		})
		if got := *kernel.Load(); !got.Equal(passed) {
			t.Errorf("the kernel was left with %s, want %s", got, passed)
		}
	})
	t.Run("before the look", func(t *testing.T) {
		var d deadline
		d.ask(far)
		d.mu.Lock() // as if another were telling
		told := make(chan time.Time, 1)
		go func() {
			_ = d.tell(func(at time.Time) error { told <- at; return nil })
		}()
		time.Sleep(50 * time.Millisecond) // it waits by now
		d.ask(passed)
		d.mu.Unlock()
		soon(t, "tell", func() {
			if got := <-told; !got.Equal(passed) {
				t.Errorf("the kernel was told %s, want what was asked for last: %s", got, passed)
			}
		})
	})
}
