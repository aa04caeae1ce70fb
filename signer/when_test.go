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
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

// whenWorld has a profile with a condition over everything.
func whenWorld(t testing.TB, when string) *world {
	w := newWorld(t, keyring.ES256)
	p := &w.cfg.Profiles[0]
	p.When = when
	p.Claims = profile.Claims{Allow: []string{"tenant", "n", "roles"}, Add: []request.Claim{{Name: "env", Value: json.RawMessage(`"prod"`)}}}
	return w.start().ready()
}

func TestWhen(t *testing.T) {
	const isFalse, failed = "the condition of the profile is false", "the condition of the profile failed: "
	nobody := profile.Caller{Socket: "default", Known: true, Peer: unixsock.Peer{UID: 1000, GID: 65534, Groups: []uint32{65534, 2000}}}
	for _, tc := range []struct {
		when, claims, reason string
		c                    profile.Caller
	}{
		{`claims.tenant in ['acme', 'globex']`, `{"tenant":"acme"}`, "", alice},
		{`claims.tenant in ['acme', 'globex']`, `{"tenant":"initech"}`, isFalse, alice},
		{`claims.tenant in ['acme', 'globex']`, `{}`, failed + "no such key: tenant", alice},
		{`claims.tenant > 5`, `{"tenant":"acme"}`, failed + "no such overload", alice},
		{`claims.n == 9007199254740993`, `{"n":9007199254740993}`, "", alice},
		{`claims.n == 9007199254740993`, `{"n":9007199254740992.0}`, isFalse, alice},
		{`claims.n == 9007199254740993`, `{"n":1e300}`, failed + `claim "n": it holds a number`, alice},
		{`claims.env == 'prod' && size(claims) == 1`, `{}`, "", alice},
		{`request.subject == 'user-1' && request.profile == 'p-ES256' && request.ttl_seconds == 300`, `{}`, "", alice},
		{`request.audience == ['api://orders']`, `{}`, "", alice}, // the profile's, which the request left out
		{`peer.socket == 'default' && peer.uid == 1000 && peer.gid == 1000 && peer.groups == [1000, 2000]`, `{}`, "", alice},
		{`peer.gid == -1 && peer.groups == [2000]`, `{}`, "", nobody},
		{`65534 in peer.groups || peer.gid == 65534`, `{}`, isFalse, nobody},
		{`peer.groups == [1000, 2000]`, `{}`, "", profile.Caller{Socket: "default", Known: true, Peer: unixsock.Peer{UID: 1000, GID: 1000, Groups: []uint32{65534, 1000, 2000}}}},
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
	stranger := profile.Caller{Socket: "default", Known: true, Peer: unixsock.Peer{UID: 7, GID: 7}}
	for _, claims := range []string{`{"tenant":"acme"}`, `{"tenant":"x"}`} {
		_, got := w.s.answer(context.Background(), stranger, []byte(`{"profile":"p-ES256","subject":"user-1","claims":`+claims+`}`))
		_, want := w.s.answer(context.Background(), stranger, []byte(`{"profile":"nope"}`))
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v, and for no profile %v", got, want)
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
