package vaultkv_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultkv"
	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/keyring"
)

var vault *vaulttest.Server

func TestMain(m *testing.M) { goleak.VerifyTestMain(vaulttest.Shared{M: m, Server: &vault}) }

// logs is a log that can be searched while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// options say how a custody is opened; what is left out is as in production.
type options struct {
	server  *vaulttest.Server
	url     string // a proxy's
	mount   string
	policy  string // "" is the rotator's
	gen     half.Generator
	timeout time.Duration
	log     *logs
}

// open logs in by AppRole with nothing but the policy, and runs the session
// for the length of the test.
func open(t *testing.T, o options) *vaultkv.Custody {
	t.Helper()
	if o.server == nil {
		o.server = vault
	}
	if o.url == "" {
		o.url = o.server.URL()
	}
	if o.mount == "" {
		o.mount = o.server.Mount(t)
	}
	if o.policy == "" {
		o.policy = policy(t, o.mount, vaultkv.RoleRotator)
	}
	if o.log == nil {
		o.log = new(logs)
	}
	role := o.server.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{o.server.Policy(t, o.policy)}})
	log := slog.New(slog.NewJSONHandler(o.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	session, err := vaultsession.New(vaultsession.Config{
		Address: o.url, Timeout: o.timeout, Logger: log,
		Auth: vaultsession.Auth{Method: vaultsession.MethodAppRole, RoleIDFile: role.RoleIDFile, SecretIDFile: role.SecretIDFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- session.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return vaultkv.New(vaultkv.Config{Session: session, Mount: o.mount, Logger: log, Generate: o.gen})
}

func policy(t *testing.T, mount string, roles ...string) string {
	t.Helper()
	text, err := vaultkv.Policy(mount, nil, roles...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// behind is a custody behind a proxy, and one beside it on the same mount.
func behind(t *testing.T, o options) (proxied, direct *vaultkv.Custody, proxy *vaulttest.Proxy, mount string) {
	t.Helper()
	proxy, mount = vaulttest.NewProxy(t, vault.URL()), vault.Mount(t)
	o.url, o.mount = proxy.URL, mount
	return open(t, o), open(t, options{mount: mount}), proxy, mount
}

func isWrite(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/data/")
}

// stored is what Load shows, which must be s.
func stored(t *testing.T, c *vaultkv.Custody, s *keyring.Snapshot) int {
	t.Helper()
	got, version, err := c.Load(t.Context(), s.Config.Name)
	if err != nil {
		t.Fatal(err)
	}
	if got.WriteID != s.WriteID {
		t.Fatalf("generation %d is stored, not %d", got.Generation, s.Generation)
	}
	return version
}

func save(t *testing.T, c *vaultkv.Custody, s *keyring.Snapshot, version int) int {
	t.Helper()
	v, err := c.Save(t.Context(), s.Config.Name, s, version)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func create(t *testing.T, c *vaultkv.Custody) keyring.Key {
	t.Helper()
	jwk, handle, err := c.Create(t.Context(), "main", keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	return custodytest.KeyOf(jwk, handle)
}
