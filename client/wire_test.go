package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
)

func TestReadAnswer(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, tc := range []struct {
		name, in, body, after string
		status                int
		keep                  bool
		err                   error
	}{
		{name: "length", in: ok + "Content-Length: 3\r\n\r\nabc", body: "abc", status: 200, keep: true},
		{name: "nothing", in: ok + "content-length:0\r\n\r\n", status: 200, keep: true},
		{name: "chunks", in: ok + "Transfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: x\r\n\r\n", body: "abcde", status: 200, keep: true},
		{name: "close", in: ok + "Connection: close\r\nContent-Length: 1\r\n\r\na", body: "a", status: 200},
		{name: "to the end", in: ok + "\r\nabc", body: "abc", status: 200},
		{name: "bare newlines, no reason", in: "HTTP/1.1 503\nRetry-After: 7\nContent-Length: 0\n\n", status: 503, after: "7", keep: true},
		{name: "one before", in: "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ok + "Content-Length: 1\r\n\r\na", body: "a", status: 200, keep: true},
		{name: "empty", err: io.EOF},
		{name: "half a line", in: "HTTP/1.1 2", err: io.ErrUnexpectedEOF},
		{name: "half a header", in: ok + "Content-Le", err: io.ErrUnexpectedEOF},
		{name: "half a body", in: ok + "Content-Length: 3\r\n\r\nab", err: io.ErrUnexpectedEOF},
		{name: "half a chunk", in: ok + "Transfer-Encoding: chunked\r\n\r\n3\r\nab", err: io.ErrUnexpectedEOF},
		{name: "no last chunk", in: ok + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", err: io.ErrUnexpectedEOF},
		{name: "another protocol", in: "SSH-2.0-x\r\n", err: errNotKeyturn},
		{name: "another version", in: "HTTP/1.0 200 OK\r\n", err: errNotKeyturn}, // whose connections end otherwise
		{name: "odd status", in: "HTTP/1.1 2x0 OK\r\n", err: errNotKeyturn},
		{name: "long status", in: "HTTP/1.1 2000 OK\r\n", err: errNotKeyturn},
		{name: "header without colon", in: ok + "abc\r\n", err: errNotKeyturn},
		{name: "many headers", in: ok + strings.Repeat("a: b\r\n", maxHeaders+1), err: errNotKeyturn},
		{name: "two lengths", in: ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", err: errNotKeyturn},
		{name: "two kinds of length", in: ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", err: errNotKeyturn},
		{name: "odd length", in: ok + "Content-Length: -1\r\n\r\n", err: errNotKeyturn},
		{name: "no length", in: ok + "Content-Length:\r\n\r\n", err: errNotKeyturn},
		{name: "another encoding", in: ok + "Transfer-Encoding: gzip\r\n\r\n", err: errNotKeyturn},
		{name: "odd chunk", in: ok + "Transfer-Encoding: chunked\r\n\r\nx\r\n", err: errNotKeyturn},
		{name: "chunk without end", in: ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", err: errNotKeyturn},
	} {
		a, err := readAnswer(bufio.NewReader(strings.NewReader(tc.in)))
		if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
			t.Errorf("%s: error %v, want %v", tc.name, err, tc.err)
			continue
		}
		if err == nil && (a.status != tc.status || string(a.body) != tc.body || a.retryAfter != tc.after || a.keep != tc.keep) {
			t.Errorf("%s: %d %q after %q keep %v", tc.name, a.status, a.body, a.retryAfter, a.keep)
		}
	}
}

// ending is a connection whose answer comes in the moment in which the context ends.
type ending struct {
	net.Conn
	cancel context.CancelFunc
}

func (e ending) Read(p []byte) (int, error) {
	n, err := e.Conn.Read(p)
	e.cancel()
	return n, err
}

// A connection whose deadline was moved, or is about to be, by the end of a
// context is not used for the next call.
func TestConnectionOfAnEndedContext(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() {
		_, _ = far.Read(make([]byte, 10))
		_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := &conn{Conn: near, r: bufio.NewReader(ending{near, cancel})}
	if a, keep, err := c.exchange(ctx, time.Now().Add(time.Minute), []byte("GET")); err != nil || keep || string(a.body) != "a" {
		t.Errorf("kept %v, %v", keep, err)
	}
}

// FuzzReadAnswer: what it takes, net/http takes as well, and reads the same.
func FuzzReadAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest",
		"HTTP/1.1 200 OK\nConnection: close\n\nx",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := readAnswer(bufio.NewReaderSize(bytes.NewReader(in), 4<<10))
		if err != nil {
			return
		}
		defer a.release()
		status, body := a.status, string(a.body)
		if !a.keep || status < 200 || status == 204 || status == 304 { // its length is told otherwise
			return
		}
		r := bufio.NewReader(bytes.NewReader(in))
		for {
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				return // ours reads names and reasons with less care
			}
			if resp.StatusCode < 200 {
				continue
			}
			want, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err == nil && (resp.StatusCode != status || string(want) != body) {
				t.Errorf("%d %q, net/http reads %d %q", status, body, resp.StatusCode, want)
			}
			return
		}
	})
}

// FuzzReadToken: the short way reads what the decoder reads.
func FuzzReadToken(f *testing.F) {
	f.Add([]byte(`{"token":"a.b.c","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}` + "\n"))
	f.Add([]byte(`{"token":"a","kid":"k","expires_at":"2026-03-01T12:00:00+01:00","expires_in":1,"new":2}`))
	f.Add([]byte(`{"token":"\u0061","kid":"","expires_at":"2026-03-01T12:00:00Z","expires_in":01}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var short, long api.SignResponse
		rest, ok := plainToken(body, &short)
		if !ok || len(bytes.TrimSpace(rest)) > 0 {
			_ = readToken(body, &short) // whatever it says
			return
		}
		if err := decode(body, &long); err != nil {
			t.Fatalf("%s: the decoder says %v", body, err)
		}
		if diff := cmp.Diff(long, short); diff != "" {
			t.Errorf("%s (-decoder +short):\n%s", body, diff)
		}
		if err := readToken(body, &long); err != nil {
			t.Error(err)
		}
	})
}

// FuzzReadResults: no answer to a batch crashes, or gives more or fewer results
// than there were requests.
func FuzzReadResults(f *testing.F) {
	one := `{"token":"a.b.c","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}`
	f.Add([]byte(`{"results":[`+one+`,`+one+`]}`), 2)
	f.Add([]byte(`{"results":[`+one+`,{"error":{"code":"forbidden","status":403}}]}`), 2)
	f.Fuzz(func(t *testing.T, body []byte, n int) {
		if n < 0 || n > 10 {
			return
		}
		out, err := readResults(body, n)
		if err != nil {
			return
		}
		if len(out) != n {
			t.Fatalf("%d results of %d", len(out), n)
		}
		for _, r := range out {
			if (r.Err == nil) == (r.Token == "") {
				t.Errorf("token %q and error %v", r.Token, r.Err)
			}
		}
	})
}

// FuzzProblem: whatever a refusal says, its error says something, and waits for
// no longer than it is told.
func FuzzProblem(f *testing.F) {
	f.Add(503, "5", []byte(`{"type":"about:blank","title":"x","status":503,"code":"unavailable"}`))
	f.Add(429, "Wed, 21 Oct 2026 07:28:00 GMT", []byte(`{"code":"rate_limited","waiting_for":["a"]}`))
	f.Fuzz(func(t *testing.T, status int, after string, body []byte) {
		err := problem(status, after, body)
		if err == nil || err.Error() == "" {
			t.Fatal("no error")
		}
		var p *api.Problem
		if errors.As(err, &p) && (p.Code == "" || p.Status != status || p.RetryAfter < 0) {
			t.Errorf("problem %+v", p)
		}
		for attempt := range 40 {
			if wait := pause(err, attempt); wait <= 0 || wait > maxRetryAfter*5/4 {
				t.Errorf("a pause of %s", wait)
			}
		}
	})
}

func TestRetryAfter(t *testing.T) {
	for in, want := range map[string]time.Duration{"": 0, "0": 0, "3": 3 * time.Second, "-1": 0, "1.5": 0, " 1": 0, "99999999999999999999": 0, "Wed, 21 Oct 2026 07:28:00 GMT": 0} {
		if got := waiting(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
