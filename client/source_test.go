package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/keyturn/keyturn/api"
)

// bubble is a daemon at the other end of pipes, whose time is that of a
// synctest bubble. It signs tokens t1, t2, … that live for ttl.
type bubble struct {
	ttl    time.Duration
	down   atomic.Bool
	hangUp atomic.Bool // once, instead of an answer
	refuse atomic.Pointer[api.Problem]
	takes  time.Duration
	calls  atomic.Int32
}

// client connects to it.
func (b *bubble) client(t *testing.T) *Client {
	t.Helper()
	c, err := New(Config{Socket: "/nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	c.pool.dial = func(context.Context) (net.Conn, error) {
		if b.down.Load() {
			return nil, fmt.Errorf("dial: %w", net.ErrClosed)
		}
		near, far := net.Pipe()
		wg.Go(func() { b.serve(far) })
		return near, nil
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	return c
}

func (b *bubble) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		body := make([]byte, req.ContentLength)
		if _, err := req.Body.Read(body); err != nil && len(body) == 0 {
			return
		}
		if b.down.Load() || b.hangUp.Swap(false) {
			return
		}
		time.Sleep(b.takes)
		rec := fmt.Sprintf(`{"token":"t%d","kid":"k","expires_at":%q,"expires_in":%d}`, b.calls.Add(1), time.Now().Add(b.ttl).UTC().Format(time.RFC3339), b.ttl/time.Second)
		head := "200 OK"
		if p := b.refuse.Load(); p != nil {
			head, rec = fmt.Sprintf("%d x\r\nRetry-After: %d", p.Status, p.RetryAfter/time.Second), fmt.Sprintf(`{"code":%q}`, p.Code)
		}
		if _, err := fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", head, len(rec), rec); err != nil {
			return
		}
	}
}

// in runs a test with a source of tokens that live for a minute and a half.
func in(t *testing.T, f func(t *testing.T, b *bubble, s *Source)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{ttl: 90 * time.Second}
		f(t, b, b.client(t).Source(api.SignRequest{Profile: "p"}))
	})
}

func (s *Source) must(t *testing.T, want string) {
	t.Helper()
	if got, err := s.Token(t.Context()); err != nil || got.Token != want {
		t.Errorf("%s: token %q %v, want %s", time.Now().Format(time.TimeOnly), got.Token, err, want)
	}
}

// A connection that was dead before the call costs it no pause: the daemon has
// been replaced. One that breaks at its first use does.
func TestDeadConnectionCostsNoTime(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		for _, paused := range []bool{true, false} {
			b.hangUp.Store(true)
			began := time.Now()
			if _, err := s.client.Sign(t.Context(), s.req); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); (took > 0) != paused {
				t.Errorf("it took %s", took)
			}
		}
	})
}

// Where the time ends in the midst of a later attempt, the error still tells
// what was in the way before.
func TestLastCauseIsTold(t *testing.T) {
	in(t, func(t *testing.T, _ *bubble, s *Source) {
		first := true
		s.client.pool.dial = func(ctx context.Context) (net.Conn, error) {
			if first {
				first = false
				return nil, fs.ErrNotExist
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := s.client.Sign(t.Context(), s.req)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "is the daemon running") {
			t.Error(err)
		}
	})
}

func TestSourceRefreshesAhead(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		s.must(t, "t1")
		time.Sleep(53 * time.Second) // 0.6 of its life are 54
		s.must(t, "t1")
		synctest.Wait()
		if n := b.calls.Load(); n != 1 {
			t.Errorf("%d calls before two thirds", n)
		}
		time.Sleep(8 * time.Second) // two thirds are 60
		s.must(t, "t1")             // nobody waits for the next one
		synctest.Wait()
		s.must(t, "t2")
		time.Sleep(24 * time.Hour) // nobody asked: nothing is signed
		if n := b.calls.Load(); n != 2 {
			t.Errorf("%d calls", n)
		}
		s.must(t, "t3") // and the old one is not given out
	})
}

func TestSourceAsksOnce(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		b.takes = time.Second
		for round := range 3 {
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() { s.must(t, fmt.Sprint("t", round+1)) })
			}
			wg.Wait()
			if n := int(b.calls.Load()); n != round+1 {
				t.Errorf("%d calls in round %d", n, round)
			}
			time.Sleep(85 * time.Second)
		}
	})
}

// While the daemon is away the token is used until shortly before its end;
// then the caller waits, as long as its context allows.
func TestSourceOutage(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		s.must(t, "t1")
		b.down.Store(true)
		began := time.Now()
		for time.Since(began) < 80*time.Second {
			s.must(t, "t1")
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second) // the margin of ten seconds, or a tenth of 90
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := s.Token(ctx)
		if err == nil || !Retryable(err) {
			t.Errorf("after its end: %v", err)
		}
		time.Sleep(time.Minute) // what was under way has ended by its own time
		if _, err = s.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "went away") {
			t.Errorf("long after: %v", err)
		}
		b.down.Store(false)
		time.Sleep(lastRest)
		s.must(t, "t2")
	})
}

// A refusal is told at once, and does not become a flood.
func TestSourceRefused(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		b.refuse.Store(api.NewProblem(api.Forbidden, ""))
		var p *api.Problem
		for range 100 {
			if _, err := s.Token(t.Context()); !errors.As(err, &p) || p.Code != api.Forbidden {
				t.Fatalf("%v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := b.calls.Load(); n < 2 || n > 8 {
			t.Errorf("%d calls in ten seconds", n)
		}
		b.refuse.Store(nil)
		time.Sleep(lastRest)
		s.must(t, fmt.Sprint("t", b.calls.Load()+1))
	})
}

func TestSourceInvalidate(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		s.must(t, "t1")
		s.Invalidate("t1") // too young to blame
		s.must(t, "t1")
		time.Sleep(minAge)
		s.Invalidate("t0")
		s.must(t, "t1")
		s.Invalidate("t1")
		s.must(t, "t2")
		s.Invalidate("t1")
		s.must(t, "t2")
	})
}

func TestSourceEndsWithItsClient(t *testing.T) {
	in(t, func(t *testing.T, b *bubble, s *Source) {
		b.takes = 20 * time.Second
		go func() {
			time.Sleep(time.Second)
			if err := s.client.Close(); err != nil {
				t.Error(err)
			}
		}()
		began := time.Now()
		if _, err := s.Token(t.Context()); !errors.Is(err, context.Canceled) || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.Sleep(time.Minute)
		if _, err := s.Token(t.Context()); !errors.Is(err, errClosed) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// A suspended machine's monotonic clock stands still while the wall clock goes
// on; a clock that is set back moves the wall clock alone.
func TestBeforeByBothClocks(t *testing.T) {
	now := time.Now()
	end := now.Add(time.Minute)
	if !before(now, end) || before(end, end) {
		t.Error("both clocks agree")
	}
	if before(wallOnly(now, time.Hour), end) {
		t.Error("an hour of sleep was not noticed")
	}
	if before(wallOnly(end, -time.Hour), end) {
		t.Error("a clock that was set back makes tokens live longer")
	}
}

// wallOnly moves the wall clock of a time and leaves its monotonic reading,
// which no method of time.Time can do: it is the second word of three.
func wallOnly(t time.Time, d time.Duration) time.Time {
	t = t.Add(d)
	(*[2]int64)(unsafe.Pointer(&t))[1] -= int64(d)
	return t
}

// TestSourceTellsWhy: who gives up waiting is told what was in the way.
func TestSourceTellsWhy(t *testing.T) {
	c, err := New(Config{Socket: filepath.Join(t.TempDir(), "nobody.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = c.Source(api.SignRequest{Profile: "p"}).Token(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Token = %v, want that there is no socket", err)
	}
}
