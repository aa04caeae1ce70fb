package keyring

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// revise gives the replica a file of the next revision.
func (l *life) revise(change func(*Config)) {
	l.file = l.file.Clone()
	l.file.Revision++
	change(&l.file)
}

func TestHigherRevisionIsAdopted(t *testing.T) {
	l := settled(t, bucketConfig())
	l.revise(func(c *Config) { c.ConsumerCache, c.Rings[0].Rotate = dur("20m"), "never" })
	old := bucketConfig()
	wantEvents(t, l.commit(), ConfigAdopted)
	if diff := cmp.Diff(l.file, l.s.Config, cmp.AllowUnexported(Config{}, Ring{}, Target{})); diff != "" {
		t.Errorf("in force (-file +manifest):\n%s", diff)
	}
	wantNothing(t, l.commit())
	// A replica that still has the old file writes nothing, and says what differs.
	l.file = old
	out := l.commit()
	wantNothing(t, out)
	want := []Alarm{{Code: "config_drift", Issuer: "main", Since: l.now, Message: "the file differs from the configuration in force (revision 2) and its revision 1 is not higher, so it is ignored: " +
		"consumer_cache: 20m0s → 15m0s, rings.web.rotate: never → weekly; raise the revision to put it in force"}}
	if diff := cmp.Diff(want, out.Alarms); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSameRevision: equal means equal; the order of a list in the file is not
// a difference.
func TestSameRevision(t *testing.T) {
	file := selfConfig()
	l := settled(t, file)
	l.turn()
	slices.Reverse(l.file.Targets)
	if out := l.commit(); out.Next != nil || out.Alarms != nil {
		t.Errorf("order counts: %v, %v", out.Events, out.Alarms)
	}
	l.file.Rings[0].MaxTokenTTL = dur("2h")
	out := l.commit()
	wantNothing(t, out)
	if !slices.Equal(codes(out), []string{"config_drift"}) || !strings.Contains(out.Alarms[0].Message, "rings.web.max_token_ttl: 1h0m0s → 2h0m0s") {
		t.Errorf("alarms %v", out.Alarms)
	}
	if l.s.Active("web").MaxTTL != dur("1h") {
		t.Error("it is acted upon all the same")
	}
}

func TestURLNeverChanges(t *testing.T) {
	l := settled(t, bucketConfig())
	l.revise(func(c *Config) { c.URL, c.ConsumerCache = "https://elsewhere.example", dur("20m") })
	out := l.commit()
	wantNothing(t, out)
	if !slices.Equal(codes(out), []string{"config_drift"}) || !strings.Contains(out.Alarms[0].Message, `"https://elsewhere.example", its tokens say "https://tokens.example.com"`) {
		t.Errorf("alarms %v", out.Alarms)
	}
}

func TestDiff(t *testing.T) {
	a := selfConfig()
	if got := Diff(a, a.Clone()); got != nil {
		t.Errorf("of itself: %q", got)
	}
	b := Config{
		Name: "main", URL: "https://b", Revision: 9, ConsumerCache: 1, JWKSMaxAge: 2, Leeway: 3, OutageBudget: 4, ClockSkew: 5,
		SyncInterval: 6, MaxKeys: 7, SingleProcess: true,
		Targets: []Target{{Name: "endpoint", Kind: TargetFile, View: ViewSPIFFE}, {Name: "new", Kind: TargetFile}},
		Rings:   []Ring{{Name: "web", Algorithm: RS256, RSABits: 2048, Custody: "transit", Rotate: "x", MaxTokenTTL: 8}, {Name: "api"}},
	}
	want := []string{
		"clock_skew: 10s → 5ns",
		"consumer_cache: 15m0s → 1ns",
		"jwks_max_age: 5m0s → 2ns",
		"leeway: 1m0s → 3ns",
		"max_keys: 100 → 7",
		"outage_budget: 24h0m0s → 4ns",
		"publish.endpoint.kind: http → file",
		"publish.endpoint.required: true → false",
		"publish.endpoint.view:  → spiffe",
		"publish.file: only in force",
		"publish.new: only in the file",
		"rings.api: only in the file",
		"rings.web.algorithm: EdDSA → RS256",
		"rings.web.custody: vaultkv → transit",
		"rings.web.max_token_ttl: 1h0m0s → 8ns",
		"rings.web.rotate: weekly → x",
		"rings.web.rsa_bits: 0 → 2048",
		"single_process: false → true",
		"sync_interval: 10s → 6ns",
		"url: https://tokens.example.com → https://b",
	}
	if diff := cmp.Diff(want, Diff(a, b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestTIsRaisedBeforeUse in the same write as the configuration, with the
// tail, and never lowered.
func TestTIsRaisedBeforeUse(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn(asked("web")) // there is a retired key as well
	l.revise(func(c *Config) { c.Rings[0].MaxTokenTTL, c.Leeway = dur("3h"), dur("90s") })
	l.commit()
	if l.s.Config.Revision != 2 {
		t.Fatal("not adopted")
	}
	check := func(when string, ttl, tail string) {
		t.Helper()
		for i := range l.s.Keys {
			k := &l.s.Keys[i]
			wantTTL, wantTail := dur(ttl), dur(tail)
			if !k.Retired.IsZero() { // it signs no more
				wantTTL, wantTail = dur("1h"), dur("1h1m10s")
			}
			if k.MaxTTL != wantTTL || k.Tail != wantTail {
				t.Errorf("%s: the %s key has T %s and tail %s", when, k.State(l.now), k.MaxTTL, k.Tail)
			}
		}
	}
	check("raised", "3h", "3h1m40s") // 3h + 10s + 90s
	l.revise(func(c *Config) { c.Rings[0].MaxTokenTTL, c.Leeway = dur("10m"), dur("1s") })
	l.commit()
	check("lowered", "3h", "3h1m40s")
	// A key that is born now has the new one.
	l.publish()
	l.turn()
	l.wait(time.Hour)
	l.turn(asked("web"))
	if k := l.s.Standby("web"); k.MaxTTL != dur("10m") || k.Tail != dur("10m11s") {
		t.Errorf("a new key has T %s and tail %s", k.MaxTTL, k.Tail)
	}
}

// TestRingIsDrained: what a revision leaves out signs no more, and its keys
// stay for their tails.
func TestRingIsDrained(t *testing.T) {
	file := bucketConfig()
	file.Rings = append(file.Rings, Ring{Name: "api", Algorithm: ES256, Custody: "vaultkv", Rotate: "weekly", MaxTokenTTL: dur("1h")})
	l := settled(t, file)
	active, standby := l.s.Active("api").JWK.Kid, l.s.Standby("api").JWK.Kid
	lease := l.s.Lease
	l.revise(func(c *Config) { c.Rings = slices.DeleteFunc(c.Rings, func(r Ring) bool { return r.Name == "api" }) })
	out := l.commit()
	if n := count(kinds(out), KeyRetired); n != 2 || l.s.Active("api") != nil || l.s.Standby("api") != nil {
		t.Fatalf("events %v", out.Events)
	}
	if k := l.s.Key(active); !k.SignUntil.Equal(lease) {
		t.Errorf("the active key's sign_until is %v, the lease that was stored is %v", k.SignUntil, lease)
	}
	if k := l.s.Key(standby); !k.SignUntil.Equal(l.now) {
		t.Errorf("the standby's sign_until is %v: it never signed", k.SignUntil)
	}
	l.until(l.s.Key(active).WithdrawAt())
	kids := mustSet(t, l.s, l.now.Add(-time.Nanosecond), ViewAll).Kids
	if !slices.Contains(kids, active) || slices.Contains(kids, standby) {
		t.Error("the keys of the drained ring do not stay for their tails, or stay longer")
	}
	if slices.Contains(mustSet(t, l.s, l.now, ViewAll).Kids, active) {
		t.Error("the active key is not withdrawn after its tail")
	}
	if l.halves[active] || l.halves[standby] || len(l.halves) != 2 {
		t.Errorf("halves that exist: %v", l.halves)
	}
}

// TestRingsWaitTheirLead: one that is new, and one that comes back.
func TestRingsWaitTheirLead(t *testing.T) {
	l := settled(t, bucketConfig())
	api := Ring{Name: "api", Algorithm: ES256, Custody: "vaultkv", Rotate: "weekly", MaxTokenTTL: dur("1h")}
	joins := func(when string) {
		t.Helper()
		l.turn()
		l.publish()
		l.turn()
		if k := l.s.Standby("api"); k == nil || k.Founding || l.s.Active("api") != nil {
			t.Fatalf("%s: %+v", when, k)
		}
		if !slices.Contains(codes(l.out), "no_active_key") {
			t.Errorf("%s: no alarm that it cannot sign yet: %v", when, l.out.Alarms)
		}
		start := l.now
		for l.s.Active("api") == nil {
			l.now = l.out.Wake
			l.turn()
		}
		if got := l.now.Sub(start); got != 910*time.Second {
			t.Errorf("%s: active after %s, the lead is 15m10s", when, got)
		}
	}
	l.revise(func(c *Config) { c.Rings = append(c.Rings, api) })
	joins("new")
	l.revise(func(c *Config) { c.Rings = slices.DeleteFunc(c.Rings, func(r Ring) bool { return r.Name == "api" }) })
	l.turn()
	l.wait(time.Hour)
	l.revise(func(c *Config) { c.Rings = append(c.Rings, api) })
	joins("back")
}

// TestTargetThatBecomesRequired, or means something else, starts anew.
func TestTargetThatBecomesRequired(t *testing.T) {
	two := func(required bool) Config {
		c := bucketConfig()
		c.Targets = append(c.Targets, Target{Name: "mirror", Kind: TargetBucket, Required: required})
		return c
	}
	for _, tc := range []struct {
		name    string
		from    Config
		change  func(*Config)
		waiting []string
	}{
		{"becomes required", two(false), func(c *Config) { c.Targets[1].Required = true }, []string{"mirror"}},
		{"is new and required", bucketConfig(), func(c *Config) { c.Targets = two(true).Targets }, []string{"mirror"}},
		{"gets another view", two(true), func(c *Config) { c.Targets[1].View = ViewSPIFFE }, []string{"mirror"}},
		{"gets another kind", two(true), func(c *Config) { c.Targets[1].Kind = TargetConfirm }, []string{"mirror"}},
		{"is no longer required", two(true), func(c *Config) { c.Targets[1].Required = false }, nil},
		{"is gone", two(true), func(c *Config) { c.Targets = c.Targets[:1] }, nil},
		{"stays", two(true), func(c *Config) { c.MaxKeys = 50 }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := settled(t, tc.from)
			l.turn()
			l.seen = nil
			l.revise(tc.change)
			l.turn()
			k := l.s.Standby("web")
			if got := l.s.WaitingFor(k); !slices.Equal(got, tc.waiting) {
				t.Fatalf("waits for %q, want %q", got, tc.waiting)
			}
			for name := range k.Confirmed {
				if !slices.ContainsFunc(l.s.Config.Targets, func(t Target) bool { return t.Name == name }) {
					t.Errorf("keeps the confirmation of %q, which is gone", name)
				}
			}
			if tc.waiting == nil {
				return
			}
			l.seen = map[string]Observation{}
			l.publish()
			l.turn()
			if e := refusal(t, l.plan(asked("web"))); !e.SafeAt.Equal(l.now.Add(910 * time.Second)) {
				t.Errorf("safe at %v, a lead from now is %v", e.SafeAt, l.now.Add(910*time.Second))
			}
		})
	}
}

// TestRevisionBeforeTheFirstKeys: the rings of the revision are founded.
func TestRevisionBeforeTheFirstKeys(t *testing.T) {
	l := newLife(t, bucketConfig())
	l.commit()
	l.revise(func(c *Config) { c.Rings[0].Algorithm = ES384 })
	wantEvents(t, l.commit(), ConfigAdopted)
	l.turn()
	if k := l.s.Standby("web"); k == nil || k.JWK.Alg != ES384 || !k.Founding {
		t.Errorf("born: %+v", k)
	}
}
