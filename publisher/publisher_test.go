package publisher_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lineage = "lineage-one"
	lease   = time.Hour
	// tail is T + E + λ of the snapshots here.
	tail = time.Hour + 10*time.Second + time.Minute
)

// newKey is a fresh public key.
func newKey(t testing.TB, alg keyring.Algorithm) keyring.JWK {
	t.Helper()
	var pub any
	if alg == keyring.EdDSA {
		p, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pub = p
	} else {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pub = &k.PublicKey
	}
	jwk, err := keyring.NewJWK(pub, alg)
	if err != nil {
		t.Fatal(err)
	}
	return jwk
}

// snapshot has an active key and standbys; its set is to be served until
// lease + tail from now.
func snapshot(now time.Time, generation uint64, active keyring.JWK, standbys ...keyring.JWK) *keyring.Snapshot {
	s := &keyring.Snapshot{
		Schema: keyring.Schema, Lineage: lineage, Generation: generation, WriteID: "w", Lease: now.Add(lease),
		Config: keyring.Config{
			Name: "main", URL: "https://tokens.example.com/main", Revision: 1,
			ConsumerCache: keyring.Duration(15 * time.Minute), JWKSMaxAge: keyring.Duration(5 * time.Minute),
			Leeway: keyring.Duration(time.Minute), OutageBudget: keyring.Duration(time.Hour),
			ClockSkew: keyring.Duration(10 * time.Second), SyncInterval: keyring.Duration(10 * time.Second),
			Rings: []keyring.Ring{{Name: "web", Algorithm: keyring.ES256, MaxTokenTTL: keyring.Duration(time.Hour)}},
		},
	}
	s.Keys = append(s.Keys, keyring.Key{JWK: active, Ring: "web", Created: now, Activated: now, Tail: keyring.Duration(tail)})
	for _, k := range standbys {
		s.Keys = append(s.Keys, keyring.Key{JWK: k, Ring: "web", Created: now, Tail: keyring.Duration(tail)})
	}
	return s
}

// events counts what a publisher calls back.
type events struct{ woken, good, bad, drifted atomic.Int64 }

// harness is a publisher that runs until the test ends, or stop is called.
type harness struct {
	*publisher.Publisher
	events *events
	stop   func()
}

// start runs a publisher of the one issuer main.
func start(t *testing.T, cfg publisher.Config, targets ...publisher.Target) *harness {
	t.Helper()
	h := &harness{events: new(events)}
	if cfg.Issuers == nil {
		cfg.Issuers = []publisher.Issuer{{Name: "main", URL: "https://tokens.example.com/main", Targets: targets}}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	cfg.Wake = func() { h.events.woken.Add(1) }
	cfg.Observe = func(_, _ string, ok bool) {
		if ok {
			h.events.good.Add(1)
		} else {
			h.events.bad.Add(1)
		}
	}
	cfg.Drifted = func(string, string) { h.events.drifted.Add(1) }
	p, err := publisher.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Publisher = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	h.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	t.Cleanup(h.stop)
	return h
}

// codes are those of the alarms, fatal ones with a mark.
func (h *harness) codes() []string {
	var out []string
	for _, a := range h.Alarms() {
		code := a.Code
		if a.Fatal {
			code += "!"
		}
		out = append(out, code)
	}
	return out
}

func (h *harness) wantCodes(t *testing.T, want ...string) {
	t.Helper()
	if got := h.codes(); !slices.Equal(got, want) {
		t.Errorf("alarms %q, want %q: %+v", got, want, h.Alarms())
	}
}

// wantConfirmed fails unless the target was read back with exactly these keys.
func (h *harness) wantConfirmed(t *testing.T, target string, want ...keyring.JWK) {
	t.Helper()
	if got, ok := h.Confirmed("main")[target]; !ok || !slices.Equal(got.Kids, kids(want...)) {
		t.Errorf("%s was read back with %q (%v), want %q", target, got.Kids, ok, kids(want...))
	}
}

func (h *harness) status(t *testing.T, target string) publisher.Status {
	t.Helper()
	for _, s := range h.Status("main") {
		if s.Name == target {
			return s
		}
	}
	t.Fatalf("no status of %s", target)
	return publisher.Status{}
}

func kids(keys ...keyring.JWK) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, k.Kid)
	}
	slices.Sort(out)
	return out
}

// setOf is the document with these keys.
func setOf(t testing.TB, keys ...keyring.JWK) []byte {
	t.Helper()
	doc, err := json.Marshal(keyring.JWKSet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// eventually waits for something that happens on real sockets.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never happened that %s", what)
		}
	}
}

func nowhere(context.Context) (net.Conn, error) { return nil, errors.New("nobody listens") }

func TestNewRefuses(t *testing.T) {
	file := publisher.Target{Name: "file", Kind: keyring.TargetFile, File: "/srv/jwks.json"}
	http := publisher.Target{Name: "endpoint", Kind: keyring.TargetHTTP}
	with := func(change func(*publisher.Target), t publisher.Target) publisher.Target {
		change(&t)
		return t
	}
	issuer := func(name, url string, targets ...publisher.Target) publisher.Issuer {
		return publisher.Issuer{Name: name, URL: url, Targets: targets}
	}
	for name, tc := range map[string]struct {
		issuers []publisher.Issuer
		self    publisher.Self
		want    string
	}{
		"a bucket": {want: "not built", issuers: []publisher.Issuer{
			issuer("main", "https://x", publisher.Target{Name: "b", Kind: keyring.TargetBucket})}},
		"a file twice": {want: "belongs to target file of issuer main already", issuers: []publisher.Issuer{
			issuer("main", "https://x", file), issuer("other", "https://y", file)}},
		"the side file of another": {want: "belongs to", issuers: []publisher.Issuer{
			issuer("main", "https://x", file, with(func(t *publisher.Target) { t.Name, t.File = "b", "/srv/jwks.json.keyturn" }, file))}},
		"a target twice": {want: "the name main/file belongs to", issuers: []publisher.Issuer{
			issuer("main", "https://x", file, with(func(t *publisher.Target) { t.File = "/srv/b" }, file))}},
		"no path": {want: "not a path", issuers: []publisher.Issuer{
			issuer("main", "https://x", with(func(t *publisher.Target) { t.File = "" }, file))}},
		"an unknown view": {want: "view", issuers: []publisher.Issuer{
			issuer("main", "https://x", with(func(t *publisher.Target) { t.View = "cobol" }, file))}},
		"http without a listener": {want: "listener", issuers: []publisher.Issuer{issuer("main", "https://x", http)}},
		"two issuers of one path": {want: "the path /.well-known/openid-configuration belongs to issuer main", self: publisher.Self{Dial: nowhere}, issuers: []publisher.Issuer{
			issuer("main", "https://x", http), issuer("other", "https://y", with(func(t *publisher.Target) { t.HTTPPath = "/other" }, http))}},
		"an unclean path": {want: "absolute and clean", self: publisher.Self{Dial: nowhere}, issuers: []publisher.Issuer{
			issuer("main", "https://x", with(func(t *publisher.Target) { t.HTTPPath = "/a/../b" }, http))}},
		"confirm in the clear": {want: "use https", issuers: []publisher.Issuer{
			issuer("main", "https://x", publisher.Target{Name: "c", Kind: keyring.TargetConfirm, ConfirmURL: "http://example.com/jwks.json"})}},
		"confirm with a password": {want: "without credentials", issuers: []publisher.Issuer{
			issuer("main", "https://x", publisher.Target{Name: "c", Kind: keyring.TargetConfirm, ConfirmURL: "https://u:hunter2@example.com/"})}},
		"no URL": {want: "issuer main", issuers: []publisher.Issuer{issuer("main", "tokens.example.com", file)}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := publisher.New(publisher.Config{Issuers: tc.issuers, Self: tc.self, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("New = %v, want an error with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a password: %v", err)
			}
		})
	}
}

// Run waits for the end even where there is nothing to do.
func TestRunWithoutTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := publisher.New(publisher.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := false
		go func() {
			if err := p.Run(ctx); err != nil {
				t.Error(err)
			}
			ended = true
		}()
		synctest.Wait()
		if ended {
			t.Error("Run returned before ctx ended")
		}
		cancel()
		synctest.Wait()
		if !ended {
			t.Error("Run did not return")
		}
	})
}

// Accept must not wait for anybody: not before Run, not for a stuck target.
func TestAcceptNeverBlocks(t *testing.T) {
	p, err := publisher.New(publisher.Config{
		Logger: slog.New(slog.DiscardHandler),
		Issuers: []publisher.Issuer{{Name: "main", URL: "https://x", Targets: []publisher.Target{
			{Name: "file", Kind: keyring.TargetFile, File: t.TempDir() + "/f"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t, keyring.ES256)
	for g := range uint64(100) {
		p.Accept("main", snapshot(time.Now(), g+1, key))
	}
	p.Accept("unknown", snapshot(time.Now(), 1, key))
	p.Accept("main", nil)
}
