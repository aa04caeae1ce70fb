package admin

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// wantIssuers is GET /v1/issuers for snapshot at midnight, the start of a synctest bubble.
const wantIssuers = `{"issuers":[{"name":"main","url":"https://tokens.example.com","lineage":"lin","generation":7,"revision":3,` +
	`"lease":"2000-01-01T08:00:00Z","read_at":"1999-12-31T23:59:59Z",` +
	`"timing":{"consumer_cache_seconds":900,"clock_skew_seconds":10,"leeway_seconds":60,"outage_budget_seconds":28800,"lead_seconds":37000,"tail_seconds":3670,"span_seconds":36090},` +
	`"rings":[{"name":"web","algorithm":"ES256","custody":"vaultkv","rotate":"0 3 * * 0","max_token_ttl_seconds":3600,"next_rotation":"2000-01-02T03:00:00Z","keys":[` +
	`{"kid":"k-standby","algorithm":"ES256","state":"standby","created_at":"1999-12-31T23:59:00Z","confirmed":{"file":"1999-12-31T23:59:59Z"},"waiting_for":["slow"]},` +
	`{"kid":"k-active","algorithm":"ES256","state":"active","created_at":"1999-12-31T22:00:00Z","activated_at":"1999-12-31T23:00:00Z","sign_until":"2000-01-01T08:00:00Z","confirmed":{"file":"1999-12-31T22:00:00Z"}},` +
	`{"kid":"k-retired","algorithm":"ES256","state":"retired","created_at":"1999-12-31T21:00:00Z","activated_at":"1999-12-31T22:00:00Z","retired_at":"1999-12-31T23:00:00Z","sign_until":"2000-01-01T01:00:00Z","withdrawn_at":"2000-01-01T01:01:00Z"}]},` +
	`{"name":"old","algorithm":"ES256","custody":"vaultkv","rotate":"","max_token_ttl_seconds":0,"keys":[` +
	`{"kid":"k-drained","algorithm":"ES256","state":"withdrawn","created_at":"1999-12-31T15:00:00Z","activated_at":"1999-12-31T16:00:00Z","retired_at":"1999-12-31T17:00:00Z","sign_until":"1999-12-31T18:00:00Z","closed_at":"1999-12-31T19:00:00Z","destroyed_at":"1999-12-31T20:00:00Z","withdrawn_at":"1999-12-31T18:01:00Z"}]}],` +
	`"targets":[{"name":"slow","kind":"confirm","location":"https://cdn.example.com/jwks.json","required":true,"generation":6,"read_back_at":"1999-12-31T23:59:50Z","error":"stale"}],` +
	`"reasons":[{"code":"confirm_behind","issuer":"main","target":"slow","message":"an old set","since":"1999-12-31T23:59:00Z"}]}],` +
	`"replica":{"version":"1.2.3","roles":["rotator","signer"],"started_at":"2000-01-01T00:00:00Z","ready":true,"signer_ready":true,` +
	`"reasons":[{"code":"confirm_behind","issuer":"main","target":"slow","message":"an old set","since":"1999-12-31T23:59:00Z"}]}}` + "\n"

func full(c *Config) {
	now := time.Now().In(time.FixedZone("elsewhere", 3600)) // answers are in UTC all the same
	c.Next = func(r keyring.Ring, _ *keyring.Snapshot) time.Time { return now.Add(27 * time.Hour) }
	c.ReadAt = func(string) time.Time { return now.Add(-time.Second) }
	c.Targets = func(string) []api.Target {
		return []api.Target{{Name: "slow", Kind: "confirm", Location: "https://cdn.example.com/jwks.json", Required: true, Generation: 6, ReadBackAt: now.Add(-10 * time.Second), Error: "stale"}}
	}
	c.Alarms = func() []keyring.Alarm {
		return []keyring.Alarm{{Code: "confirm_behind", Issuer: "main", Target: "slow", Message: "an old set", Since: now.Add(-time.Minute)}}
	}
	c.VaultExpiry = func() (time.Time, bool) { return now.Add(time.Hour), true }
}

func TestIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, full)
		f.Accept("main", snapshot(time.Now()))
		w := f.admin(root(), "GET", "/v1/issuers", "")
		if diff := cmp.Diff(strings.Split(wantIssuers, ","), strings.Split(w.Body.String(), ",")); w.Code != 200 || diff != "" {
			t.Errorf("%d (-want +got):\n%s", w.Code, diff)
		}
		if got := w.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("Content-Type %q", got)
		}
		var strict api.Issuers
		if err := strictjson.Unmarshal(w.Body.Bytes(), &strict); err != nil {
			t.Error(err)
		}
		if len(f.audit.records) != 0 {
			t.Errorf("looking was recorded: %+v", f.audit.records)
		}
	})
}

func TestIssuersBeforeTheFirstSnapshot(t *testing.T) {
	f := newFixture(t, nil)
	var got api.Issuers
	if err := json.Unmarshal(f.admin(root(), "GET", "/v1/issuers", "").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Issuers) != 1 || got.Issuers[0].Name != "main" || len(got.Issuers[0].Reasons) != 1 || got.Issuers[0].Reasons[0].Code != CodeNoSet || got.Replica.Ready {
		t.Errorf("issuers = %+v", got)
	}
}

func TestAccess(t *testing.T) {
	id := func(n uint32) *uint32 { return &n }
	rules := []Rule{{UID: id(1000)}, {GID: id(27)}, {UID: id(2000), GID: id(2001)}, {UID: id(unixsock.Overflow)}}
	for name, tc := range map[string]struct {
		allow []Rule
		who   unixsock.Peer
		want  int
	}{
		"root by default":            {nil, unixsock.Peer{UID: 0}, 200},
		"others not by default":      {nil, unixsock.Peer{UID: 1000}, 403},
		"group root is not root":     {nil, unixsock.Peer{UID: 1000, GID: 0}, 403},
		"root not with rules":        {rules, unixsock.Peer{UID: 0}, 403},
		"by uid":                     {rules, unixsock.Peer{UID: 1000, GID: 5}, 200},
		"by primary group":           {rules, unixsock.Peer{UID: 5, GID: 27}, 200},
		"by supplementary group":     {rules, unixsock.Peer{UID: 5, GID: 5, Groups: []uint32{4, 27}}, 200},
		"both fields":                {rules, unixsock.Peer{UID: 2000, GID: 1, Groups: []uint32{2001}}, 200},
		"one of two fields":          {rules, unixsock.Peer{UID: 2000, GID: 1}, 403},
		"the other of two":           {rules, unixsock.Peer{UID: 1, GID: 2001}, 403},
		"overflow, even if it is in": {rules, unixsock.Peer{UID: unixsock.Overflow}, 403},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.Allow = tc.allow })
			w := f.admin(tc.who, "GET", "/v1/issuers", "")
			if w.Code != tc.want {
				t.Fatalf("%d, want %d: %s", w.Code, tc.want, w.Body)
			}
			if tc.want == 200 {
				return
			}
			if p := problem(t, w); p.Code != api.Forbidden {
				t.Errorf("code %s, want forbidden", p.Code)
			}
			want := []audit.Record{{Event: audit.EventAdmin, Decision: audit.Deny, Code: "forbidden", Socket: "admin", UID: tc.who.UID, GID: tc.who.GID, Reason: "GET /v1/issuers"}}
			if diff := cmp.Diff(want, f.audit.records, cmpopts.IgnoreFields(audit.Record{}, "Time")); diff != "" {
				t.Errorf("audit (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAccessForbidsEveryPath(t *testing.T) {
	f := newFixture(t, nil)
	for _, tc := range []struct{ method, path, ring string }{
		{"GET", "/v1/issuers", ""}, {"POST", "/v1/rings/web/rotate", "web"}, {"GET", "/", ""}, {"POST", "/v1/keys/k/revoke", ""},
		{"POST", "/v1/rings/web/revoke", "web"}, {"POST", "/v1/revoke", ""}, {"POST", "/v1/issuers/main/accept", ""},
	} {
		f.audit.records = nil
		if w := f.admin(unixsock.Peer{UID: 4711}, tc.method, tc.path, "{bad"); w.Code != 403 {
			t.Errorf("%s %s = %d, want 403", tc.method, tc.path, w.Code)
		}
		if len(f.audit.records) != 1 || f.audit.records[0].Ring != tc.ring || f.audit.records[0].UID != 4711 {
			t.Errorf("%s %s: audit = %+v", tc.method, tc.path, f.audit.records)
		}
	}
	// Without ConnContext, or where the kernel does not tell, nobody is somebody.
	f.audit.records = nil
	if w := ask(f.AdminHandler(), nil, "GET", "/v1/issuers", ""); w.Code != 403 {
		t.Errorf("unknown caller: %d, want 403", w.Code)
	}
	if len(f.audit.records) != 1 || f.audit.records[0].UID != unixsock.Unknown {
		t.Errorf("unknown caller: audit = %+v", f.audit.records)
	}
	f.audit.failAt = 1
	if w := f.admin(unixsock.Peer{UID: 4711}, "GET", "/v1/issuers", ""); w.Code != 403 {
		t.Errorf("with an audit log that fails: %d, want 403", w.Code)
	}
	if !strings.Contains(f.log.String(), "audit log") {
		t.Error("the log does not tell that the audit log fails")
	}
}

func TestUnknownPaths(t *testing.T) {
	f := newFixture(t, nil)
	for _, line := range []string{
		"GET /", "GET /v1", "GET /v1/issuers/main", "POST /v1/issuers", "DELETE /v1/issuers",
		"GET /v1/keys/k1/revoke", "GET /v1/revoke", "GET /v1/issuers/main/accept", "POST /v1/keys/k1", "DELETE /v1/keys/k1", "GET /v1/rings/web/rotate", "DELETE /v1/rings/web", "POST /v1/rings//rotate/x",
	} {
		method, path, _ := strings.Cut(line, " ")
		w := f.admin(root(), method, path, "{}")
		if w.Code == http.StatusMovedPermanently || w.Code == http.StatusTemporaryRedirect {
			continue // a path that is not clean
		}
		if p := problem(t, w); w.Code != 404 || p.Code != api.NotFound {
			t.Errorf("%s = %d %s, want 404 not_found", line, w.Code, p.Code)
		}
	}
}

// TestOnARealSocket joins listener, credentials, handler and audit log.
func TestOnARealSocket(t *testing.T) {
	dir := t.TempDir()
	log, err := audit.Open(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	f := newFixture(t, func(c *Config) { c.Audit = log })
	l, err := unixsock.Listen(unixsock.Config{Path: filepath.Join(dir, "admin.sock"), GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f.AdminHandler(), ConnContext: unixsock.ConnContext}
	done := make(chan error)
	go func() { done <- srv.Serve(l) }()
	defer func() {
		_ = srv.Close()
		<-done
	}()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://keyturn/v1/issuers")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("the own uid got %d", resp.StatusCode)
	}
}
