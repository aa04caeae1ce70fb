package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// strangers hold connections of a listener: each asks once, keeps its
// connection, and comes back when it has been closed, until the context ends.
type strangers struct {
	all   sync.WaitGroup
	holds atomic.Int64
	asked atomic.Int64
}

func (s *strangers) hold(ctx context.Context, addr, path string, n int) {
	for i := range n {
		from := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 9, byte(1+i%2))}}
		s.all.Go(func() {
			for ctx.Err() == nil {
				s.visit(ctx, &from, addr, path)
				select { // a second each: they are slow, and many
				case <-ctx.Done():
				case <-time.After(time.Second):
				}
			}
		})
	}
}

func (s *strangers) visit(ctx context.Context, from *net.Dialer, addr, path string) {
	c, err := from.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: k\r\n\r\n"); err != nil {
		return
	}
	s.asked.Add(1)
	s.holds.Add(1)
	defer s.holds.Add(-1)
	_, _ = io.Copy(io.Discard, c) // until it is closed
}

// TestStrangersHoldConnections: strangers hold more connections of the public
// and of the status listener than there may be. Consumers get the set and probes
// their answers all the same, and keys turn over: keyturn reads its endpoint back
// through the same listener. Fault 34.
func TestStrangersHoldConnections(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	before := d.files()
	var crowd strangers
	ctx, stop := context.WithCancel(t.Context())
	defer crowd.all.Wait()
	defer stop()
	crowd.hold(ctx, d.public, "/.well-known/jwks.json", 700)
	crowd.hold(ctx, d.status, "/livez", 120)
	within(t, 30*time.Second, "a crowd", func() error {
		if n := crowd.asked.Load(); n < 820 {
			return fmt.Errorf("%d have asked", n)
		}
		return nil
	})
	if n := crowd.holds.Load(); n < 300 {
		t.Errorf("they hold %d connections: no crowd", n)
	}
	consumer := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	signed := map[string]bool{}
	for began := time.Now(); len(signed) < 3; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d keys have signed within a minute: rotation waits for the strangers", len(signed))
		}
		for _, url := range []string{d.jwksURL(), "http://" + d.status + "/livez"} {
			resp, err := consumer.Get(url)
			if err != nil {
				t.Fatalf("a consumer beside %d held connections: %v", crowd.holds.Load(), err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s: status %d, %v", url, resp.StatusCode, err)
			}
			must(t, resp.Body.Close())
		}
		signed[d.mustToken("web").Kid] = true
	}
	if n := d.files(); n > before+512+64 {
		t.Errorf("%d file descriptors, %d before", n, before)
	}
	t.Logf("%d visits, %d connections held, %d file descriptors", crowd.asked.Load(), crowd.holds.Load(), d.files())
}
