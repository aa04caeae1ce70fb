package daemon

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
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
	"sync"
	"sync/atomic"
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

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// from is a client whose connections come from an address of this host.
func from(t *testing.T, addr string, config *tls.Config) *http.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}, Timeout: 20 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, MaxIdleConnsPerHost: 1000}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// counting knows how many of its connections are open, and the most that were.
type counting struct {
	net.Listener
	open, peak atomic.Int64
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.peak.Store(max(l.peak.Load(), l.open.Add(1)))
	return &countedConn{TCPConn: c.(*net.TCPConn), closed: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

type countedConn struct {
	*net.TCPConn
	closed func()
}

func (c *countedConn) Close() error {
	defer c.closed()
	return c.TCPConn.Close()
}

// TestStrangersMakeRoom: who holds connections and asks for nothing, after an
// answer or without one, takes them from nobody who asks, also where TLS is
// between, and holds no more than there may be.
func TestStrangersMakeRoom(t *testing.T) {
	cert, key := certificateFiles(t)
	for _, secured := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls %t", secured), func(t *testing.T) {
			d := &daemon{log: slog.New(slog.DiscardHandler), metrics: admin.NewMetrics(admin.MetricsConfig{}), options: Options{Config: &configs.Config{}}}
			defer d.closeListeners()
			const most = 48
			raw, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			counts := &counting{Listener: raw}
			ln := d.opened(d.webListener(counts, "public", most))
			url, config := "http://"+ln.Addr().String(), (*tls.Config)(nil)
			front := ln
			if secured {
				certificate, err := loadCertificate(configs.TLS{CertFile: cert, KeyFile: key})
				must(t, err)
				d.certificate.Store(certificate)
				front, url, config = d.secured(ln), "https://"+ln.Addr().String(), &tls.Config{InsecureSkipVerify: true}
			}
			srv := webServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "set") }), d.log)
			stop, end := context.WithCancel(t.Context())
			p := serve("public listener", front, srv)
			served := make(chan error, 1)
			go func() { served <- p.run(stop) }()

			for _, addr := range []string{"127.0.0.2", "127.0.0.3"} {
				for range most { // silent
					c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).Dial("tcp", ln.Addr().String())
					must(t, err)
					defer c.Close()
				}
				for range most { // each in a client of its own, which keeps its connection
					get(t, from(t, addr, config), url)
				}
			}
			for range 2 * most {
				fresh := from(t, "127.0.0.4", config)
				get(t, fresh, url)
				fresh.CloseIdleConnections()
			}
			if n := counts.peak.Load(); n > most || n < most/2 {
				t.Errorf("%d connections at once, %d may be", n, most)
			}
			end()
			must(t, <-served)
		})
	}
}

func get(t *testing.T, c *http.Client, url string) {
	t.Helper()
	resp, err := c.Get(url)
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, errors.Join(err, resp.Body.Close()))
	if string(body) != "set" {
		t.Errorf("answered %d %q", resp.StatusCode, body)
	}
}

// TestLimitsAreSet: every listener that the daemon opens has one.
func TestLimitsAreSet(t *testing.T) {
	d := &daemon{log: slog.New(slog.DiscardHandler), metrics: admin.NewMetrics(admin.MetricsConfig{}), options: Options{Config: &configs.Config{}}}
	defer d.closeListeners()
	public, err := d.tcp("127.0.0.1:0", "public", publicConns)
	must(t, err)
	if _, ok := public.(*gate.Conns); !ok {
		t.Errorf("public is a %T", public)
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
	if got := said.String(); strings.Count(got, "connections refused") != 1 || !strings.Contains(got, fmt.Sprintf("listener=sign/default count=1 last=%d", os.Getuid())) {
		t.Errorf("the log says %q", got)
	}
	counted := httptest.NewRecorder()
	d.metrics.Handler().ServeHTTP(counted, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if !strings.Contains(counted.Body.String(), `keyturn_connections_refused_total{listener="sign/default"} 2`) {
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

// TestWebServersLimits: what a stranger may send and how he may speak is
// bounded, by the server and not by what stands before it.
func TestWebServersLimits(t *testing.T) {
	cert, key := certificateFiles(t)
	certificate, err := loadCertificate(configs.TLS{CertFile: cert, KeyFile: key})
	must(t, err)
	d := &daemon{log: slog.New(slog.DiscardHandler), metrics: admin.NewMetrics(admin.MetricsConfig{}), options: Options{Config: &configs.Config{}}}
	defer d.closeListeners()
	d.certificate.Store(certificate)
	ln, err := d.tcp("127.0.0.1:0", "public", 100)
	must(t, err)
	p := serve("public listener", d.secured(ln), webServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "set") }), d.log))
	stop, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.run(stop) }()
	defer func() {
		end()
		must(t, <-served)
	}()
	url := "https://" + ln.Addr().String()
	modern := from(t, "127.0.0.1", &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	get(t, modern, url)
	req, err := http.NewRequest(http.MethodGet, url, nil)
	must(t, err)
	req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
	resp, err := modern.Do(req)
	if err == nil { // it may be reset while it still sends
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("64 KiB of header: %d", resp.StatusCode)
		}
	}
	old := from(t, "127.0.0.1", &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if resp, err := old.Get(url); err == nil {
		_ = resp.Body.Close()
		t.Error("TLS 1.1 is spoken")
	}
}
