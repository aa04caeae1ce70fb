package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// link is a TCP connection's way, which can be cut, slowed down and left
// half-open.
type link struct {
	proxy *toxiproxy.Proxy
	busy  sync.Mutex // held by who harms it
}

func newLink(t *testing.T, name, upstream string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{proxy: toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}
	must(t, l.proxy.Start())
	t.Cleanup(l.proxy.Stop)
	return l
}

func (l *link) url() string { return "http://" + l.proxy.Listen }

// cut refuses new connections and ends those that are there.
func (l *link) cut() { l.proxy.Stop() }

// open ends a cut.
func (l *link) open() error { return l.proxy.Start() }

// silence lets connections be made, and nothing comes back over them.
func (l *link) silence() error {
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(`{"name": "silence", "type": "timeout", "attributes": {"timeout": 0}}`))
	return err
}

// delay slows every answer down.
func (l *link) delay(by time.Duration) error {
	_, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name": "delay", "type": "latency", "attributes": {"latency": %d, "jitter": %d}}`, by.Milliseconds(), by.Milliseconds()/4)))
	return err
}

// heal takes away what silence and delay have brought. The connections that
// suffered from the first are closed.
func (l *link) heal() { l.proxy.Toxics.ResetToxics(context.Background()) }
