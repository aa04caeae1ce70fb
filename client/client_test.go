package client_test

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
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
)

var fixedTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// serve answers a socket with a handler; stop breaks its connections and takes
// the socket away, as a daemon does that ends.
func serve(t *testing.T, path string, h http.HandlerFunc) (stop func()) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	stop = sync.OnceFunc(func() { _ = srv.Close(); <-done })
	t.Cleanup(stop)
	return stop
}

func socketPath(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }

func tokenFor(w http.ResponseWriter, name string) {
	doc, _ := json.Marshal(api.SignResponse{Token: name, Kid: "k", ExpiresAt: fixedTime, ExpiresIn: 300})
	_, _ = w.Write(doc)
}

func short(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestWhatIsSent(t *testing.T) {
	path := socketPath(t)
	var got string
	serve(t, path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.URL.String() + " " + string(body)
		tokenFor(w, "t")
	})
	t.Setenv(client.SocketEnv, path)
	c := newClient(t, "")
	if c.Socket() != path {
		t.Errorf("socket %q, want that of %s", c.Socket(), client.SocketEnv)
	}
	five := int64(5)
	resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p", Subject: "<ü>", Audience: api.Audience{"a"}, TTLSeconds: &five,
		Claims: map[string]json.RawMessage{"n": json.RawMessage(`1.50`), "s": json.RawMessage(`"a&b"`)}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `POST /v1/sign {"profile":"p","subject":"<ü>","audience":["a"],"ttl_seconds":5,"claims":{"n":1.50,"s":"a&b"}}` + "\n"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if *resp != (api.SignResponse{Token: "t", Kid: "k", ExpiresAt: fixedTime, ExpiresIn: 300}) {
		t.Errorf("answer %+v", resp)
	}
	for name, req := range map[string]api.SignRequest{
		"no UTF-8": {Profile: "p", Subject: "\xff"},
		"no JSON":  {Profile: "p", Claims: map[string]json.RawMessage{"a": json.RawMessage(`1},"x":{`)}},
	} {
		got = ""
		if _, err := c.Sign(t.Context(), req); err == nil || got != "" || client.Retryable(err) {
			t.Errorf("%s: error %v, sent %q", name, err, got)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]client.Config{
		"long path": {Socket: "/" + strings.Repeat("x", 107)},
		"timeout":   {Timeout: -1},
		"no conns":  {MaxConns: -1},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// What the daemon refuses is a problem with its code; only what waiting mends
// is worth another call.
func TestRefusals(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{Profiles: []clienttest.Profile{{Profile: api.Profile{Name: "orders", Subject: api.Subject{Fixed: "svc"}, Audiences: []string{"api"}}}}})
	c := kt.Client()
	hour := int64(7200)
	for _, tc := range []struct {
		code  api.Code
		fails api.Code
		retry bool
		req   api.SignRequest
	}{
		{api.Forbidden, "", false, api.SignRequest{Profile: "none"}},
		{api.InvalidRequest, "", false, api.SignRequest{}},
		{api.TTLTooLong, "", false, api.SignRequest{Profile: "orders", TTLSeconds: &hour}},
		{api.ClaimForbidden, "", false, api.SignRequest{Profile: "orders", Claims: map[string]json.RawMessage{"x": json.RawMessage("1")}}},
		{api.SigningLapsed, api.SigningLapsed, true, api.SignRequest{Profile: "orders"}},
		{api.RateLimited, api.RateLimited, true, api.SignRequest{Profile: "orders"}},
	} {
		kt.Fail(tc.fails)
		_, err := c.Sign(short(t, 900*time.Millisecond), tc.req)
		var p *api.Problem
		var e *client.Error
		if !errors.As(err, &p) || p.Code != tc.code || !errors.As(err, &e) || e.Op != "sign" || e.Socket != kt.Socket() {
			t.Errorf("%s: %v", tc.code, err)
			continue
		}
		if client.Retryable(err) != tc.retry || (p.RetryAfter > 0) != tc.retry {
			t.Errorf("%s: retryable %v, after %s", tc.code, client.Retryable(err), p.RetryAfter)
		}
		results, err := c.SignBatch(short(t, 900*time.Millisecond), []api.SignRequest{tc.req})
		if err != nil || len(results) != 1 || !errors.As(results[0].Err, &p) || p.Code != tc.code || client.Retryable(results[0].Err) != tc.retry {
			t.Errorf("%s in a batch: %+v %v", tc.code, results, err)
		}
	}
}

// TestPatience: a call outlasts a daemon that says when to come back, and one
// that is replaced.
func TestPatience(t *testing.T) {
	path := socketPath(t)
	var calls atomic.Int32
	h := func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			api.NewProblem(api.Unavailable, "starting").WriteTo(w)
			return
		}
		tokenFor(w, fmt.Sprint("t", calls.Load()))
	}
	stop := serve(t, path, h)
	c := newClient(t, path)
	began := time.Now()
	if resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p"}); err != nil || resp.Token != "t2" || time.Since(began) < time.Second {
		t.Errorf("%+v %v after %s", resp, err, time.Since(began))
	}
	// A new daemon at the same path: the kept connection is dead, the call is not.
	stop()
	stop = serve(t, path, h)
	if resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p"}); err != nil || resp.Token != "t3" {
		t.Errorf("after a restart: %+v %v", resp, err)
	}
	// Nobody for a while.
	stop()
	up := make(chan struct{})
	go func() {
		defer close(up)
		time.Sleep(200 * time.Millisecond)
		serve(t, path, h)
	}()
	if resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p"}); err != nil || resp.Token != "t4" {
		t.Errorf("after a pause: %+v %v", resp, err)
	}
	<-up
}

func TestNobodyThere(t *testing.T) {
	path := socketPath(t)
	c, err := client.New(client.Config{Socket: path, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Sign(t.Context(), api.SignRequest{Profile: "p"})
	if !errors.Is(err, os.ErrNotExist) || !client.Retryable(err) || !strings.Contains(err.Error(), "is the daemon running") || !strings.Contains(err.Error(), path) {
		t.Errorf("no socket: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = c.Sign(ctx, api.SignRequest{Profile: "p"}); !errors.Is(err, context.Canceled) || client.Retryable(err) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	serve(t, path, func(w http.ResponseWriter, _ *http.Request) { tokenFor(w, "t") })
	if _, err = c.Sign(t.Context(), api.SignRequest{Profile: "p"}); err == nil || client.Retryable(err) || !strings.Contains(err.Error(), "closed") {
		t.Errorf("closed: %v", err)
	}
}

// A daemon that hangs holds a call as long as its context, and its connection
// is not used again: the answer would be taken for the next one's.
func TestHangs(t *testing.T) {
	path := socketPath(t)
	hang, entered := make(chan struct{}), make(chan struct{}, 10)
	serve(t, path, func(w http.ResponseWriter, r *http.Request) {
		var req api.SignRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		if req.Subject == "hang" {
			entered <- struct{}{}
			<-hang
		}
		tokenFor(w, req.Subject)
	})
	defer close(hang)
	c := newClient(t, path)
	for want, end := range map[error]func() (context.Context, context.CancelFunc){
		context.DeadlineExceeded: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), time.Second)
		},
		context.Canceled: func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-entered; cancel() }()
			return ctx, cancel
		},
	} {
		ctx, cancel := end()
		_, err := c.Sign(ctx, api.SignRequest{Profile: "p", Subject: "hang"})
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "did not answer in time") {
			t.Errorf("%v, want %v", err, want)
		}
		cancel()
		if resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p", Subject: "next"}); err != nil || resp.Token != "next" {
			t.Errorf("the next call got %+v %v", resp, err)
		}
		select {
		case <-entered:
		default:
		}
	}
}

// TestTwoAnswers: an answer that nobody asked for is nobody's.
func TestTwoAnswers(t *testing.T) {
	path := socketPath(t)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	one := func(token string) string {
		doc := `{"token":"` + token + `","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}`
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(doc), doc)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.WriteString(conn, one("mine")+one("another's"))
			}
			defer conn.Close()
		}
	}()
	c := newClient(t, path)
	for range 3 {
		if resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p"}); err != nil || resp.Token != "mine" {
			t.Errorf("%+v %v", resp, err)
		}
	}
	_ = ln.Close()
	<-done
}

// Whatever else answers at the path, the call ends, with an error.
func TestNotKeyturn(t *testing.T) {
	for name, answer := range map[string]string{
		"no HTTP":      "220 mail.example.com ESMTP\r\n",
		"no JSON":      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"no token":     "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"no problem":   "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
		"too long":     "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
		"long chunks":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n",
		"two lengths":  "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"endless line": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<16),
	} {
		path := socketPath(t)
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
				_ = conn.Close()
			}
		}()
		c := newClient(t, path)
		_, err = c.Sign(short(t, 10*time.Second), api.SignRequest{Profile: "p"})
		if err == nil || client.Retryable(err) || !strings.Contains(err.Error(), "is it keyturn's socket?") {
			t.Errorf("%s: %v", name, err)
		}
		_ = ln.Close()
		<-done
	}
}

// Many callers share few connections, and each gets its own answer.
func TestConcurrency(t *testing.T) {
	path := socketPath(t)
	var open, most atomic.Int32
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var req api.SignRequest
			if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
				t.Error(err)
			}
			if req.Subject == "u3" { // long, so that it comes in chunks
				req.Subject += strings.Repeat("x", 5000)
			}
			tokenFor(w, req.Subject)
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				if n := open.Add(1); n > most.Load() {
					most.Store(n)
				}
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	c, err := client.New(client.Config{Socket: path, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			want := fmt.Sprint("u", i)
			for range 20 {
				resp, err := c.Sign(t.Context(), api.SignRequest{Profile: "p", Subject: want})
				if err != nil || strings.TrimRight(resp.Token, "x") != want {
					t.Errorf("%+v %v, want %s", resp, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 {
		t.Errorf("%d connections", most.Load())
	}
	if err := errors.Join(c.Close(), srv.Close()); err != nil {
		t.Error(err)
	}
	<-done
}
