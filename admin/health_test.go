package admin

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// answer is a probe's: status line, status member and the codes of its reasons.
type answer struct {
	Line   int
	Status string
	Codes  []string
}

func (f *fixture) probe(t *testing.T, path string) answer {
	t.Helper()
	w := f.status(path)
	var h api.Health
	if err := json.Unmarshal(w.Body.Bytes(), &h); err != nil {
		t.Fatalf("%s: %v: %s", path, err, w.Body)
	}
	if h.Reasons == nil {
		t.Errorf("%s: reasons is null", path)
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%s may be cached", path)
	}
	out := answer{Line: w.Code, Status: h.Status}
	for _, r := range h.Reasons {
		if r.Message == "" {
			t.Errorf("%s: %s says nothing", path, r.Code)
		}
		out.Codes = append(out.Codes, r.Code)
	}
	return out
}

func TestReadiness(t *testing.T) {
	warn := func(code string) keyring.Alarm { return keyring.Alarm{Code: code, Issuer: "main", Message: "m"} }
	fatal := func(code string) keyring.Alarm {
		return keyring.Alarm{Code: code, Issuer: "main", Message: "m", Fatal: true}
	}
	none := func(s *keyring.Snapshot) *keyring.Snapshot { return s }
	for name, tc := range map[string]struct {
		snapshot func(*keyring.Snapshot) *keyring.Snapshot
		alarms   []keyring.Alarm
		signer   []keyring.Alarm
		noSigner bool
		public   answer
		sign     answer
	}{
		"all is well": {snapshot: none, public: answer{200, "ok", nil}, sign: answer{200, "ok", nil}},
		"no manifest yet": {
			snapshot: func(*keyring.Snapshot) *keyring.Snapshot { return nil },
			public:   answer{503, "unavailable", []string{CodeNoSet}}, sign: answer{200, "ok", nil},
		},
		"no keys yet": {
			snapshot: func(s *keyring.Snapshot) *keyring.Snapshot { s.Keys, s.Lease = nil, time.Time{}; return s },
			public:   answer{503, "unavailable", []string{CodeNoSet}}, sign: answer{200, "ok", nil},
		},
		"founded, not yet active": {
			snapshot: func(s *keyring.Snapshot) *keyring.Snapshot { s.Lease = time.Time{}; return s },
			signer:   []keyring.Alarm{warn("no_active_key")},
			public:   answer{200, "degraded", []string{"no_active_key"}}, sign: answer{503, "unavailable", []string{"no_active_key"}},
		},
		"lease lapsed, tail not": {
			snapshot: func(s *keyring.Snapshot) *keyring.Snapshot { s.Lease = time.Now().Add(-time.Second); return s },
			signer:   []keyring.Alarm{warn("signing_lapsed")},
			public:   answer{200, "degraded", []string{"signing_lapsed"}}, sign: answer{503, "unavailable", []string{"signing_lapsed"}},
		},
		"last instant of the set": {
			snapshot: func(s *keyring.Snapshot) *keyring.Snapshot {
				s.Lease = time.Now().Add(-3670*time.Second + 1)
				return s
			},
			public: answer{200, "ok", nil}, sign: answer{200, "ok", nil},
		},
		"set expired": {
			snapshot: func(s *keyring.Snapshot) *keyring.Snapshot {
				s.Lease = time.Now().Add(-3670 * time.Second)
				for i := range s.Keys { // no key was retired with a longer one
					if !s.Keys[i].Retired.IsZero() {
						s.Keys[i].SignUntil = s.Lease
					}
				}
				return s
			},
			public: answer{503, "unavailable", []string{CodeSetExpired}}, sign: answer{200, "ok", nil},
		},
		"degraded": {
			snapshot: none, alarms: []keyring.Alarm{warn("store_unavailable"), warn("confirm_behind")},
			public: answer{200, "degraded", []string{"confirm_behind", "store_unavailable"}}, sign: answer{200, "ok", nil},
		},
		"fatal": {
			snapshot: none, alarms: []keyring.Alarm{warn("a"), fatal("b")},
			public: answer{503, "unavailable", []string{"a", "b"}}, sign: answer{200, "ok", nil},
		},
		"a signer's fatal alarm leaves the set good": {
			snapshot: none, signer: []keyring.Alarm{fatal("no_key")},
			public: answer{200, "degraded", []string{"no_key"}}, sign: answer{503, "unavailable", []string{"no_key"}},
		},
		"the same from two parts": {
			snapshot: none, alarms: []keyring.Alarm{warn("no_active_key")}, signer: []keyring.Alarm{warn("no_active_key")},
			public: answer{200, "degraded", []string{"no_active_key"}}, sign: answer{503, "unavailable", []string{"no_active_key"}},
		},
		"not a signer": {
			snapshot: none, noSigner: true,
			public: answer{200, "ok", nil}, sign: answer{503, "unavailable", []string{CodeNoSigner}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, func(c *Config) {
					c.Alarms = func() []keyring.Alarm { return tc.alarms }
					c.SignerAlarms = func() []keyring.Alarm { return tc.signer }
					if tc.noSigner {
						c.SignerAlarms = nil
					}
				})
				f.Accept("main", tc.snapshot(snapshot(time.Now())))
				if diff := cmp.Diff(tc.public, f.probe(t, "/readyz")); diff != "" {
					t.Errorf("/readyz (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(tc.sign, f.probe(t, "/readyz/signer")); diff != "" {
					t.Errorf("/readyz/signer (-want +got):\n%s", diff)
				}
				// The admin socket says the same.
				if got := f.issuers(time.Now()).Replica; got.Ready != (tc.public.Line == 200) || got.SignerReady != (tc.sign.Line == 200) {
					t.Errorf("replica = %+v", got)
				}
				if got := f.probe(t, "/livez"); got.Line != 200 || got.Status != "ok" {
					t.Errorf("/livez = %+v", got)
				}
			})
		})
	}
}

// TestReadinessOfManyIssuers: one without a set is enough.
func TestReadinessOfManyIssuers(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Issuers = []string{"second", "main"} })
	f.Accept("main", snapshot(time.Now()))
	if got := f.probe(t, "/readyz"); got.Line != 503 || !slices.Equal(got.Codes, []string{CodeNoSet}) {
		t.Errorf("one of two: %+v", got)
	}
	f.Accept("second", snapshot(time.Now()))
	if got := f.probe(t, "/readyz"); got.Line != 200 {
		t.Errorf("both: %+v", got)
	}
}

func TestLiveness(t *testing.T) {
	var stuck error
	f := newFixture(t, func(c *Config) { c.Alive = func() error { return stuck } })
	if got := f.probe(t, "/livez"); got.Line != 200 { // although there is no manifest
		t.Errorf("turning: %+v", got)
	}
	stuck = errors.New("the loop of issuer main has not turned for 5m")
	if got := f.probe(t, "/livez"); got.Line != 503 || !slices.Equal(got.Codes, []string{CodeNotAlive}) {
		t.Errorf("stuck: %+v", got)
	}
	f.Accept("main", snapshot(time.Now()))
	if got := f.probe(t, "/readyz"); got.Line != 200 || got.Status != "degraded" || !slices.Equal(got.Codes, []string{CodeNotAlive}) {
		t.Errorf("stuck, as /readyz says it: %+v", got)
	}
	if !slices.Contains(f.scrape(t), `keyturn_alarms{code="not_alive"} 1`) {
		t.Error("no metric tells it")
	}
}

func TestStatusListenerChangesNothing(t *testing.T) {
	f := newFixture(t, nil)
	for _, line := range []struct{ method, path string }{
		{"POST", "/livez"}, {"DELETE", "/"}, {"POST", "/metrics"}, {"GET", "/v1/issuers"}, {"POST", "/v1/rings/web/rotate"}, {"GET", "/debug/pprof/"},
	} {
		w := ask(f.StatusHandler(), nil, line.method, line.path, "")
		if p := problem(t, w); w.Code != 404 || p.Code != api.NotFound {
			t.Errorf("%s %s = %d, want 404", line.method, line.path, w.Code)
		}
	}
	if w := ask(f.StatusHandler(), nil, http.MethodHead, "/readyz", ""); w.Code != 503 {
		t.Errorf("HEAD /readyz = %d, want what GET says", w.Code)
	}
}
