package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is an audit log in memory, which fails from its nth record on.
type recorder struct {
	records []audit.Record
	failAt  int // 1 is the first; 0 never fails
}

var errAudit = &api.Problem{Code: "disk_full"} // any error

func (r *recorder) Append(ctx context.Context, rec audit.Record) error {
	if r.failAt > 0 && len(r.records)+1 >= r.failAt {
		return errAudit
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.records = append(r.records, rec)
	return nil
}

// fixture is an Admin with everything in memory.
type fixture struct {
	*Admin
	cfg   Config
	audit *recorder
	log   *bytes.Buffer
}

func newFixture(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	f := &fixture{audit: &recorder{}, log: &bytes.Buffer{}}
	f.cfg = Config{
		Replica: api.Replica{Version: "1.2.3", Roles: []string{"rotator", "signer"}, StartedAt: time.Now()},
		Issuers: []string{"main"},
		Audit:   f.audit,
		Metrics: NewMetrics(MetricsConfig{Version: "1.2.3", Revision: "abc", Profiles: []string{"orders"}}),
		Logger:  slog.New(slog.NewTextHandler(f.log, nil)),
		Command: func(_ context.Context, cmd keyring.Command, _ bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
			t.Errorf("Command was called: %+v", cmd)
			return nil, nil, keyring.ErrUnavailable
		},
		AcceptManifest: func(context.Context, string, bool, bool) (keyring.Acceptance, error) {
			t.Error("AcceptManifest was called")
			return keyring.Acceptance{}, keyring.ErrUnavailable
		},
		SignerAlarms: func() []keyring.Alarm { return nil },
	}
	if change != nil {
		change(&f.cfg)
	}
	a, err := New(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.Admin = a
	return f
}

// root is a caller who may use the admin socket by default.
func root() unixsock.Peer { return unixsock.Peer{PID: 7, UID: 0, GID: 0} }

// ask sends a request as somebody and returns the answer.
func ask(h http.Handler, who *unixsock.Peer, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if who != nil {
		r = r.WithContext(unixsock.WithPeer(r.Context(), *who))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (f *fixture) admin(who unixsock.Peer, method, path, body string) *httptest.ResponseRecorder {
	return ask(f.AdminHandler(), &who, method, path, body)
}

func (f *fixture) status(path string) *httptest.ResponseRecorder {
	return ask(f.StatusHandler(), nil, http.MethodGet, path, "")
}

// problem decodes an answer that must be a problem, and checks what every one has.
func problem(t *testing.T, w *httptest.ResponseRecorder) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if got := w.Header().Get("Content-Type"); got != api.ProblemType {
		t.Errorf("Content-Type %q, want %q", got, api.ProblemType)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q, want no-store", got)
	}
	if p.Status != w.Code {
		t.Errorf("status %d in the body, %d on the line", p.Status, w.Code)
	}
	return p
}

// snapshot is an issuer in the middle of its life, at a time: a ring with a
// standby that one target is behind with, and one that is being drained.
func snapshot(now time.Time) *keyring.Snapshot {
	jwk := func(kid string) keyring.JWK { return keyring.JWK{Kty: "EC", Use: "sig", Alg: keyring.ES256, Kid: kid} }
	minute := keyring.Duration(time.Minute)
	return &keyring.Snapshot{
		Schema: keyring.Schema, Lineage: "lin", Generation: 7, WriteID: "w",
		Config: keyring.Config{
			Name: "main", URL: "https://tokens.example.com", Revision: 3,
			ConsumerCache: 15 * minute, JWKSMaxAge: 5 * minute, Leeway: minute, OutageBudget: 8 * 60 * minute,
			ClockSkew: minute / 6, SyncInterval: minute / 6,
			Targets: []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true}, {Name: "slow", Kind: keyring.TargetConfirm, Required: true}},
			Rings:   []keyring.Ring{{Name: "web", Algorithm: keyring.ES256, Custody: "vaultkv", Rotate: "0 3 * * 0", MaxTokenTTL: 60 * minute}},
		},
		Lease: now.Add(8 * time.Hour),
		Keys: []keyring.Key{
			{JWK: jwk("k-drained"), Ring: "old", Custody: "vaultkv", Created: now.Add(-9 * time.Hour), Activated: now.Add(-8 * time.Hour), Retired: now.Add(-7 * time.Hour), SignUntil: now.Add(-6 * time.Hour), Closed: now.Add(-5 * time.Hour), Destroyed: now.Add(-4 * time.Hour), Tail: minute},
			{JWK: jwk("k-retired"), Ring: "web", Custody: "vaultkv", Created: now.Add(-3 * time.Hour), Activated: now.Add(-2 * time.Hour), Retired: now.Add(-time.Hour), SignUntil: now.Add(time.Hour), Tail: minute},
			{JWK: jwk("k-active"), Ring: "web", Custody: "vaultkv", Created: now.Add(-2 * time.Hour), Activated: now.Add(-time.Hour), Confirmed: map[string]time.Time{"file": now.Add(-2 * time.Hour)}, Tail: minute},
			{JWK: jwk("k-standby"), Ring: "web", Custody: "vaultkv", Created: now.Add(-time.Minute), Confirmed: map[string]time.Time{"file": now.Add(-time.Second)}, Tail: minute},
		},
	}
}

func TestNewRefuses(t *testing.T) {
	logger, metrics := slog.New(slog.DiscardHandler), NewMetrics(MetricsConfig{})
	for name, cfg := range map[string]Config{
		"no metrics": {Logger: logger},
		"no logger":  {Metrics: metrics},
		"empty rule": {Logger: logger, Metrics: metrics, Allow: []Rule{{}}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New took it", name)
		}
	}
}

// TestZeroFuncs: a process that has no part to ask answers all the same.
func TestZeroFuncs(t *testing.T) {
	a, err := New(Config{Issuers: []string{"main"}, Metrics: NewMetrics(MetricsConfig{}), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.Accept("main", snapshot(time.Now()))
	a.Accept("main", nil)
	a.Accept("unheard of", snapshot(time.Now()))
	who := root()
	for path, want := range map[string]int{"/v1/issuers": 200, "/v1/nothing": 404} {
		if w := ask(a.AdminHandler(), &who, "GET", path, ""); w.Code != want {
			t.Errorf("GET %s = %d, want %d", path, w.Code, want)
		}
	}
	for _, path := range []string{"/v1/rings/web/rotate", "/v1/rings/web/revoke", "/v1/keys/k/revoke", "/v1/issuers/main/accept"} {
		w := ask(a.AdminHandler(), &who, "POST", path, `{"dry_run":true}`)
		if w.Code != 503 || !strings.Contains(w.Body.String(), "role rotator") {
			t.Errorf("%s = %d %s, want 503 that names the role", path, w.Code, w.Body)
		}
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/readyz/signer": 503, "/metrics": 200, "/": 200, "/x": 404} {
		if w := ask(a.StatusHandler(), nil, "GET", path, ""); w.Code != want {
			t.Errorf("GET %s = %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
}
