package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/admin"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/gate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sockets opens a limited Unix listener in a new directory.
func sockets(t *testing.T, conns int) (*limited, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	must(t, err)
	l := limit(ln, conns)
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestLimitHolds: no more are accepted than there is room for; the next comes
// in when one has left, and one that is closed twice leaves once.
func TestLimitHolds(t *testing.T) {
	l, path := sockets(t, 2)
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range 5 {
		dial(t, path)
	}
	first, second := <-accepted, <-accepted
	none := func() {
		t.Helper()
		select {
		case <-accepted:
			t.Fatal("one more than there is room for")
		case <-time.After(50 * time.Millisecond):
		}
	}
	none()
	must(t, first.Close())
	_ = first.Close() // says that it is closed
	third := <-accepted
	none()

	must(t, l.Close()) // ends the wait for room
	if _, open := <-accepted; open {
		t.Error("accepted after the listener was closed")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want that it is closed", err)
	}
	must(t, errors.Join(second.Close(), third.Close()))
}

// TestLimitGivesTheSlotBack: an Accept that fails takes no room.
func TestLimitGivesTheSlotBack(t *testing.T) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	l := limit(ln, 4)
	defer l.Close()
	must(t, ln.SetDeadline(time.Now()))
	for range 3 {
		if _, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("Accept = %v", err)
		}
	}
	if len(l.slots) != 0 {
		t.Error("a slot is lost")
	}
}

// TestLimitKeepsTheSocket: what the sign sockets need of a listener and of a
// connection is there: the queue, and who called.
func TestLimitKeepsTheSocket(t *testing.T) {
	l, path := sockets(t, 1)
	f, err := l.File()
	must(t, err)
	defer f.Close()
	rest, err := net.FileListener(f)
	must(t, err)
	defer rest.Close()

	srv := &http.Server{
		ConnContext: unixsock.ConnContext, ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			peer, ok := unixsock.PeerFrom(r.Context())
			if !ok || !peer.HasUID(uint32(os.Geteuid())) {
				t.Errorf("the caller is %+v, %v", peer, ok)
			}
			_, _ = io.WriteString(w, "ok")
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	for range 3 { // one after the other through the only slot
		resp, err := client.Get("http://daemon/")
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if string(body) != "ok" {
			t.Errorf("answered %q", body)
		}
	}
	must(t, srv.Close())
	<-done
}

// TestLimitsAreSet: every listener that the daemon opens has one.
func TestLimitsAreSet(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler), options: Options{Config: &configs.Config{}}}
	defer d.closeListeners()
	public, err := d.tcp("127.0.0.1:0", publicConns)
	must(t, err)
	if l, ok := public.(*limited); !ok || cap(l.slots) != 512 {
		t.Errorf("public is a %T with room for %d", public, cap(l.slots))
	}
	if len(d.listeners) != 1 {
		t.Error("the daemon would not close it")
	}
}

// TestSignListener: a user who has all connections that one may have, and a
// request on each, is told so in HTTP, with the time to come back.
func TestSignListener(t *testing.T) {
	var said bytes.Buffer
	d := &daemon{log: slog.New(slog.NewTextHandler(&said, nil)), metrics: admin.NewMetrics(admin.MetricsConfig{}), options: Options{Config: &configs.Config{}}}
	path := filepath.Join(t.TempDir(), "run", "s")
	ln, err := d.unix(path, unixsock.Config{GID: -1})
	must(t, err)
	const perUser = 20
	ln = d.signListener(ln, configs.SignSocket{Name: "default", ConnectionsPerUser: perUser})
	var held []net.Conn
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range perUser {
		dial(t, path)
		c := <-accepted
		c.(*gate.Conn).Idle(false)
		held = append(held, c)
	}
	resp := refused(t, path)
	second := refused(t, path) // and not logged again
	var p api.Problem
	must(t, json.NewDecoder(resp.Body).Decode(&p))
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || !resp.Close || resp.Header.Get("Content-Type") != api.ProblemType {
		t.Errorf("answered %d %v", resp.StatusCode, resp.Header)
	}
	if p.Code != api.RateLimited || p.Status != 429 || !strings.Contains(p.Detail, "raise connections_per_user") {
		t.Errorf("answered %+v", p)
	}
	must(t, errors.Join(resp.Body.Close(), second.Body.Close(), ln.Close()))
	if _, open := <-accepted; open {
		t.Error("one too many was let in")
	}
	if got := said.String(); strings.Count(got, "connections refused") != 1 || !strings.Contains(got, fmt.Sprintf("socket=default count=1 last_uid=%d", os.Getuid())) {
		t.Errorf("the log says %q", got)
	}
	counted := httptest.NewRecorder()
	d.metrics.Handler().ServeHTTP(counted, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(counted.Body.String(), `keyturn_connections_refused_total{socket="default"} 2`) {
		t.Error("the metrics do not count both")
	}
	for _, c := range held {
		must(t, c.Close())
	}
}

// TestShare: together the listeners take no more than they may, and each gets in.
func TestShare(t *testing.T) {
	const total = publicConns + statusConns + adminConns + signConns
	for have, want := range map[uint64][2]int{
		1 << 40: {512, 64}, 4096: {512, 64}, total: {512, 64}, 512: {227, 28}, 128: {56, 7}, 4: {1, 1}, 0: {1, 1},
	} {
		got := [2]int{share(publicConns, total, have), share(adminConns, total, have)}
		if got != want {
			t.Errorf("of %d: %d, want %d", have, got, want)
		}
		if sum := uint64(2*got[0] + 2*got[1]); have >= 8 && sum > have && sum > total {
			t.Errorf("of %d: %d in all", have, sum)
		}
	}
}

// refused is what a connection is told of which no HTTP server gets to see.
func refused(t *testing.T, path string) *http.Response {
	t.Helper()
	c := dial(t, path)
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	_, err := io.WriteString(c, "POST /v1/sign HTTP/1.1\r\n")
	must(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)
	return resp
}
