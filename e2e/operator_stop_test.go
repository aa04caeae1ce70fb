package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// crowd is callers who sign as fast as they can, until nobody listens any more.
type crowd struct {
	t                *testing.T
	d                *daemon
	body             []byte
	wg               sync.WaitGroup
	answered, tokens atomic.Int64
	// late counts answers that came after the daemon was told to stop.
	told atomic.Bool
	late atomic.Int64
	// unsent counts those who had no time to send after that.
	unsent atomic.Int64
}

// join starts callers; those who hold one connection use it for all of their
// requests, the others connect for each.
func (c *crowd) join(n int, path string, hold bool) {
	for range n {
		client := overUnix(c.d.sign)
		client.Transport.(*http.Transport).DisableKeepAlives = !hold
		c.wg.Go(func() {
			defer client.CloseIdleConnections()
			for c.ask(client, path) {
			}
		})
	}
}

// ask reports whether somebody listened. A request that was sent has to be
// answered, with a token or with a reason to retry.
func (c *crowd) ask(client *http.Client, path string) bool {
	told := c.told.Load()
	resp, err := client.Post("http://keyturn"+path, "", bytes.NewReader(c.body))
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		if !c.told.Load() {
			c.t.Errorf("nobody listens before the end: %v", err)
		}
		return false
	}
	if errors.Is(err, syscall.EPIPE) && c.told.Load() {
		// It had connected and not written when the daemon's last call was over, as on
		// a busy machine; the kernel says that nothing of it was taken.
		c.unsent.Add(1)
		return false
	}
	if err != nil {
		c.t.Errorf("a request on %s that was sent got no answer: %v", path, err)
		return false
	}
	defer resp.Body.Close()
	var out struct {
		api.SignResponse
		api.BatchResponse
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != 200 {
		c.t.Errorf("status %d: %v", resp.StatusCode, err)
		return false
	}
	c.answered.Add(1)
	if out.Token != "" {
		c.tokens.Add(1)
	}
	for _, r := range out.Results { // the end cuts a batch short, each entry has its answer
		if r.SignResponse != nil {
			c.tokens.Add(1)
		} else if r.Error == nil || r.Error.Code != api.Unavailable {
			c.t.Errorf("batch entry %+v", r)
		}
	}
	if told {
		c.late.Add(1)
	}
	return true
}

// TestStopUnderLoad: SIGTERM while many callers sign. Every request that was
// sent is answered, the daemon ends within five seconds with exit code 0, its
// sockets are gone, and every token is in the audit log.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		newSite(t).stopsUnderLoad()
	})
	t.Run("vault", func(t *testing.T) { // whose token of the login ends with it
		t.Parallel()
		s := replicaSites(t, 1)[0]
		s.stopsUnderLoad()
		if left := s.accessors(); len(left) != 0 {
			t.Errorf("it has left %d tokens", len(left))
		}
	})
}

// stopWithin is the five seconds of the drain, and what a busy machine adds.
const stopWithin = 8 * time.Second

func (s *site) stopsUnderLoad() {
	t := s.t
	t.Helper()
	// The race detector would wait a second at the end of its own.
	d := start(t, s.daemon(), []string{"GORACE=atexit_sleep_ms=0"}, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	body, err := json.Marshal(ask("web"))
	must(t, err)
	ones := &crowd{t: t, d: d, body: body}
	ones.join(30, "/v1/sign", true)
	ones.join(10, "/v1/sign", false)
	batch, err := json.Marshal(api.BatchRequest{Requests: []json.RawMessage{body, body, body, body, body, body, body, body}})
	must(t, err)
	many := &crowd{t: t, d: d, body: batch}
	many.join(5, "/v1/sign/batch", true)
	time.Sleep(1500 * time.Millisecond)
	// Who holds a new connection and says nothing, or not all, keeps nobody waiting.
	for _, said := range []string{"", "POST /v1/sign HTTP/1.1\r\nHost: k\r\nContent-Length: 9\r\n\r\n{"} {
		idle, err := net.Dial("unix", d.sign)
		must(t, err)
		defer idle.Close()
		_, err = idle.Write([]byte(said))
		must(t, err)
	}

	ones.told.Store(true)
	many.told.Store(true)
	began := time.Now()
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err = <-d.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("it has not ended within 10 s of SIGTERM")
	}
	d.cmd = nil
	if took := time.Since(began); err != nil || took > stopWithin {
		t.Errorf("after SIGTERM: %v, within %s", err, took)
	}
	ones.wg.Wait()
	many.wg.Wait()
	if n := ones.unsent.Load() + many.unsent.Load(); n > 5 {
		t.Errorf("%d of 45 callers were cut off before they could send", n)
	}
	if ones.tokens.Load() < 50 || ones.late.Load() == 0 {
		t.Errorf("%d tokens, %d of them after the signal: no load", ones.tokens.Load(), ones.late.Load())
	}
	for _, pattern := range []string{"*.sock", ".*.lock"} {
		if left, err := filepath.Glob(s.path(pattern)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	allowed := int64(0)
	for _, r := range records(t, s.path("audit.jsonl")) {
		if r["decision"] == "allow" {
			allowed++
		}
	}
	if want := ones.tokens.Load() + many.tokens.Load(); allowed < want || allowed > want+2 { // start asked as well
		t.Errorf("%d tokens in the audit log, %d released", allowed, want)
	}
	t.Logf("%d tokens and %d batches, %d answers after the signal", ones.answered.Load(), many.answered.Load(), ones.late.Load())
}

// TestStopWithRequestsOnTheirWay: the process is kept from running while
// requests are sent to it, on held connections and on new ones, and SIGTERM
// after them. Each is answered.
func TestStopWithRequestsOnTheirWay(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit(`mode: "0660"`, `mode: "0660", connections_per_user: 150`) // it has 120 with a request on each
	d := s.start("web")
	body, err := json.Marshal(ask("web"))
	must(t, err)
	request := fmt.Sprintf("POST /v1/sign HTTP/1.1\r\nHost: keyturn\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	const each = 60
	var conns []net.Conn
	send := func() {
		conn, err := net.Dial("unix", d.sign)
		must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
		_, err = conn.Write([]byte(request))
		must(t, err)
		conns = append(conns, conn)
	}
	read := func(conn net.Conn) {
		t.Helper()
		var tok api.SignResponse
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			err = json.NewDecoder(resp.Body).Decode(&tok)
		}
		if err != nil || resp.StatusCode != 200 || tok.Token == "" {
			t.Errorf("no answer to a request that was sent before SIGTERM: %v", err)
		}
	}
	for range each {
		send()
	}
	for _, held := range conns {
		read(held)
	}
	must(t, d.cmd.Process.Signal(syscall.SIGSTOP))
	for _, held := range conns {
		_, err := held.Write([]byte(request))
		must(t, err)
	}
	for range each {
		send()
	}
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	must(t, d.cmd.Process.Signal(syscall.SIGCONT))
	for _, conn := range conns {
		read(conn)
	}
	select {
	case err := <-d.exited:
		if d.cmd = nil; err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it has not ended within 10 s of SIGTERM")
	}
}

// TestStopsAtOnce: a second SIGTERM, or SIGINT, and a daemon that has not yet
// read its manifest end as cleanly.
func TestStopsAtOnce(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		s := newSite(t)
		d := s.run()
		within(t, 15*time.Second, "its first line", func() error {
			if d.out.String() == "" {
				return fmt.Errorf("it has said nothing yet")
			}
			return nil
		})
		began := time.Now()
		must(t, d.cmd.Process.Signal(sig))
		must(t, d.cmd.Process.Signal(sig))
		select {
		case err := <-d.exited:
			d.cmd = nil
			if took := time.Since(began); err != nil || took > stopWithin {
				t.Errorf("%v at the start: %v, within %s", sig, err, took)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%v at the start: it has not ended within 10 s", sig)
		}
		if _, err := os.Stat(s.path("sign.sock")); err == nil {
			t.Errorf("%v at the start: the socket is left", sig)
		}
	}
}
