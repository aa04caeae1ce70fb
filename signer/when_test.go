package signer

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// whenWorld has a profile with a condition over everything.
func whenWorld(t testing.TB, when string) *world {
	w := newWorld(t, keyring.ES256)
	p := &w.cfg.Profiles[0]
	p.When = when
	p.Claims = Claims{Allow: []string{"tenant", "n", "roles"}, Add: []Claim{{"env", json.RawMessage(`"prod"`)}}}
	return w.start().ready()
}

func TestWhen(t *testing.T) {
	const isFalse, failed = "the condition of the profile is false", "the condition of the profile failed: "
	nobody := caller{socket: "default", known: true, peer: unixsock.Peer{UID: 1000, GID: 65534, Groups: []uint32{65534, 2000}}}
	for _, tc := range []struct {
		when, claims, reason string
		c                    caller
	}{
		{`claims.tenant in ['acme', 'globex']`, `{"tenant":"acme"}`, "", alice},
		{`claims.tenant in ['acme', 'globex']`, `{"tenant":"initech"}`, isFalse, alice},
		{`claims.tenant in ['acme', 'globex']`, `{}`, failed + "no such key: tenant", alice},
		{`claims.tenant > 5`, `{"tenant":"acme"}`, failed + "no such overload", alice},
		{`claims.n == 9007199254740993`, `{"n":9007199254740993}`, "", alice},
		{`claims.n == 9007199254740993`, `{"n":9007199254740992.0}`, isFalse, alice},
		{`claims.n == 9007199254740993`, `{"n":1e400}`, failed + `claim "n": it holds a number`, alice},
		{`claims.env == 'prod' && size(claims) == 1`, `{}`, "", alice},
		{`request.subject == 'user-1' && request.profile == 'p-ES256' && request.ttl_seconds == 300`, `{}`, "", alice},
		{`request.audience == ['api://orders']`, `{}`, "", alice}, // the profile's, which the request left out
		{`peer.socket == 'default' && peer.uid == 1000 && peer.gid == 1000 && peer.groups == [1000, 2000]`, `{}`, "", alice},
		{`peer.gid == -1 && peer.groups == [2000]`, `{}`, "", nobody},
		{`65534 in peer.groups || peer.gid == 65534`, `{}`, isFalse, nobody},
		{`peer.groups == [1000, 2000]`, `{}`, "", caller{socket: "default", known: true, peer: unixsock.Peer{UID: 1000, GID: 1000, Groups: []uint32{65534, 1000, 2000}}}},
	} {
		w := whenWorld(t, tc.when)
		resp, prob := w.s.answer(context.Background(), tc.c, []byte(`{"profile":"p-ES256","subject":"user-1","claims":`+tc.claims+`}`))
		rec := w.rec.all()[len(w.rec.all())-1]
		if tc.reason == "" {
			if prob != nil || resp.Token == "" || rec.Decision != audit.Allow {
				t.Errorf("%s of %s: %v (%s)", tc.when, tc.claims, prob, rec.Reason)
			}
			continue
		}
		if prob == nil || rec.Decision != audit.Deny || rec.Code != string(api.Forbidden) || !strings.HasPrefix(rec.Reason, tc.reason) || rec.JTI != "" || rec.Subject != "user-1" {
			t.Errorf("%s of %s: problem %v, record %+v", tc.when, tc.claims, prob, rec)
			continue
		}
		// The caller learns that it may not, and not why.
		if prob.Code != api.Forbidden || !strings.Contains(prob.Detail, "condition of this profile") || strings.Contains(prob.Detail, "tenant") {
			t.Errorf("problem %+v", prob)
		}
	}
}

// One whom the profile does not allow hears the same with and without a condition.
func TestWhenHidesNothing(t *testing.T) {
	w := whenWorld(t, `claims.tenant == 'acme'`)
	stranger := caller{socket: "default", known: true, peer: unixsock.Peer{UID: 7, GID: 7}}
	for _, claims := range []string{`{"tenant":"acme"}`, `{"tenant":"x"}`} {
		_, got := w.s.answer(context.Background(), stranger, []byte(`{"profile":"p-ES256","subject":"user-1","claims":`+claims+`}`))
		_, want := w.s.answer(context.Background(), stranger, []byte(`{"profile":"nope"}`))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, and for no profile %v", got, want)
		}
	}
}

func TestWhenIsChecked(t *testing.T) {
	for when, want := range map[string]string{
		"claims.tennant == 'x'":                   "when: column 7: claims.tennant: no token of this profile carries it; name it in claims.allow or claims.add",
		"claims.Tenant == 'x'":                    "claims.Tenant: no token of this profile carries it",
		"claims.ENV == 'x'":                       "claims.ENV: no token of this profile carries it",
		"claims.sub == 'x'":                       "claims.sub: keyturn writes it; write request.subject",
		"claims.aud == 'x'":                       "claims.aud: keyturn writes it; write request.audience",
		"claims.exp > 5":                          "claims.exp: keyturn writes it, after the condition was asked",
		"peer.pid == 1":                           "when: column 5: there is no peer.pid",
		"claims.tenant":                           "when: it gives dyn, and has to give true or false",
		"claims.env == 'x' && claims.tenant == 1": "",
	} {
		p := anybody("orders", "web")
		p.When, p.Claims = when, Claims{Allow: []string{"tenant"}, Add: []Claim{{"env", json.RawMessage(`1`)}}}
		var said []string
		for _, err := range CheckProfile(p, []Ring{testRings["web"]}) {
			said = append(said, err.Error())
		}
		if want == "" && len(said) > 0 || want != "" && (len(said) != 1 || !strings.Contains(said[0], want)) {
			t.Errorf("%s: %q, want %q", when, said, want)
		}
	}
	anything := anybody("orders", "web") // claims.allow: ["*"]
	anything.When = "claims.whatever == 1"
	if errs := CheckProfile(anything, []Ring{testRings["web"]}); len(errs) > 0 {
		t.Error(errs)
	}
	anything.When = "peer.uidd == 1 || request.ttl == 5"
	if errs := CheckProfile(anything, []Ring{testRings["web"]}); len(errs) != 2 || !strings.HasPrefix(errs[1].Error(), "when: ") {
		t.Errorf("two faults: %v", errs)
	}
}

// A profile of access tokens keeps what RFC 9068 and those that it points to
// say of a claim, whoever gives it.
func TestAccessTokenClaims(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	p := &w.cfg.Profiles[0]
	p.Type, p.Claims = "at+jwt", Claims{Allow: []string{AnyName}, Require: []string{"client_id"}}
	w.start().ready()
	for _, tc := range []struct{ name, value, want string }{
		{"scope", `"read write"`, ""}, {"scope", `["read"]`, "a string"}, {"scope", `""`, "a string"},
		{"auth_time", `1700000000`, ""}, {"auth_time", ` 1700000000`, ""}, {"auth_time", `"2027-01-01"`, "a time in seconds"}, {"auth_time", `-1`, "a time in seconds"},
		{"acr", `"urn:x"`, ""}, {"acr", `1`, "a string"},
		{"amr", `["pwd","otp"]`, ""}, {"amr", `"pwd"`, "a list of strings"}, {"amr", `[1]`, "a list of strings"}, {"amr", `[null]`, "a list of strings"}, {"amr", `null`, "a list of strings"},
		{"groups", `["a"]`, ""}, {"groups", `"a"`, "a list"}, {"roles", `{"a":1}`, "a list"}, {"entitlements", `[]`, ""}, {"entitlements", `null`, "a list"},
		{"other", `{"a":1}`, ""},
	} {
		_, prob := w.ask(`{"profile":"p-ES256","subject":"user-1","claims":{"client_id":"app","` + tc.name + `":` + tc.value + `}}`)
		if tc.want == "" && prob != nil || tc.want != "" && (prob == nil || prob.Code != api.InvalidRequest || !strings.Contains(prob.Detail, "claim "+tc.name+": it has to be "+tc.want)) {
			t.Errorf("%s %s: %v", tc.name, tc.value, prob)
		}
		given := anybody("orders", "web")
		given.Type, given.Claims = "application/at+jwt", Claims{Add: []Claim{{"client_id", json.RawMessage(`"app"`)}, {tc.name, json.RawMessage(tc.value)}}}
		if errs := CheckProfile(given, []Ring{testRings["web"]}); (len(errs) > 0) != (tc.want != "") {
			t.Errorf("added %s %s: %v", tc.name, tc.value, errs)
		}
	}
	if _, prob := w.ask(`{"profile":"p-ES256","subject":"user-1","claims":{"client_id":5}}`); prob == nil {
		t.Error("a number as client_id")
	}
	// None of it is the business of other types.
	w.cfg.Profiles[0].Type = "JWT"
	if err := w.s.SetProfiles(w.cfg.Profiles); err != nil {
		t.Fatal(err)
	}
	if _, prob := w.ask(`{"profile":"p-ES256","subject":"user-1","claims":{"client_id":5,"scope":["a"]}}`); prob != nil {
		t.Error(prob)
	}
}

func TestRateIsChecked(t *testing.T) {
	for _, tc := range []struct {
		rate Rate
		ok   bool
	}{{Rate{}, true}, {Rate{5, 0}, true}, {Rate{5, 1}, true}, {Rate{-1, 0}, false}, {Rate{0, 5}, false}, {Rate{5, -1}, false}} {
		p := anybody("orders", "web")
		p.Rate = tc.rate
		if errs := CheckProfile(p, []Ring{testRings["web"]}); (len(errs) == 0) != tc.ok {
			t.Errorf("%+v: %v", tc.rate, errs)
		}
	}
}

// BenchmarkWhen is BenchmarkAnswer with a condition.
func BenchmarkWhen(b *testing.B) {
	w := newWorld(b, keyring.ES256)
	w.cfg.Profiles[0].When = `claims.tenant in ['acme', 'globex'] && request.ttl_seconds <= 300`
	w.cfg.Audit, w.cfg.AuditOptional = nil, true
	w.start().ready()
	b.ReportAllocs()
	for b.Loop() {
		if _, prob := w.s.answer(context.Background(), alice, []byte(orderBody)); prob != nil {
			b.Fatal(prob)
		}
	}
}
