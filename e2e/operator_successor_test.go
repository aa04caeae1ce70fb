package e2e

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestRevokeWithoutStandby: while no standby is proven, a retired key signs;
// where there is none, nobody does until the standby is safe, when it was said,
// or it does at once where that was asked for.
func TestRevokeWithoutStandby(t *testing.T) {
	t.Parallel()
	s := emergency(t, "15s").edit("outage_budget: 4s", "outage_budget: 1m") // nothing closes by its age
	d := s.start("web")
	a, b := d.mustToken("web"), d.young("web")
	d.ok("rotate", "web", "--force", "--yes")
	c := d.young("web")

	var done api.RevokeResponse
	must(t, d.order("/v1/keys/"+b.Kid+"/revoke", api.RevokeRequest{Reason: "leaked"}, &done))
	tok := d.mustToken("web")
	if tok.Kid != a.Kid || successor(t, done).Kind != api.SuccessorRetired {
		t.Fatalf("%s signs after %+v, want the retired %s", tok.Kid, done, a.Kid)
	}
	if err := verifyWith(d.jwksURL(), tok.Token, "demo"); err != nil {
		t.Error(err)
	}

	var would api.RevokeResponse
	must(t, d.order("/v1/keys/"+a.Kid+"/revoke", api.RevokeRequest{DryRun: true}, &would))
	must(t, d.order("/v1/keys/"+a.Kid+"/revoke", api.RevokeRequest{Reason: "leaked, too"}, &done))
	who := successor(t, done)
	if who.Kind != api.SuccessorNone || who.Kid != c.Kid || who.SafeAt.Before(c.SafeAt) || len(who.Breaks) != 1 {
		t.Errorf("successor %+v, want nobody until %s is safe", who, c.Kid)
	}
	if told := successor(t, would); fmt.Sprint(told) != fmt.Sprint(who) {
		t.Errorf("the dry run told %+v", told)
	}
	if code := d.asks(ask("web")); code != api.NoActiveKey {
		t.Errorf("sign: %s, want %s", code, api.NoActiveKey)
	}
	d.reason(5*time.Second, "degraded", "no_active_key", "")
	if said := d.ok("status"); strings.Count(said, "no_active_key") != 1 {
		t.Errorf("status tells of it more than once:\n%s", said)
	}
	within(t, time.Minute, "the standby signs", func() error {
		tok, err := d.token(ask("web"))
		if err == nil && (tok.Kid != c.Kid || time.Now().Before(c.SafeAt)) {
			t.Fatalf("%s signs %s before %s is safe", tok.Kid, time.Until(c.SafeAt), c.Kid)
		}
		return err
	})

	e := d.young("web")
	must(t, d.order("/v1/keys/"+c.Kid+"/revoke", api.RevokeRequest{DryRun: true, SignNow: true}, &would))
	must(t, d.order("/v1/keys/"+c.Kid+"/revoke", api.RevokeRequest{Reason: "all of them", SignNow: true}, &done))
	who = successor(t, done)
	if tok := d.mustToken("web"); tok.Kid != e.Kid || who.Kind != api.SuccessorUnproven || who.Kid != e.Kid || len(who.Breaks) != 1 {
		t.Errorf("%s signs after %+v, want %s, by force", tok.Kid, who, e.Kid)
	}
	if told := successor(t, would); fmt.Sprint(told) != fmt.Sprint(who) {
		t.Errorf("the dry run told %+v", told)
	}
	for _, kid := range []string{a.Kid, b.Kid, c.Kid} {
		s.dies(d, time.Now(), kid)
	}
}

// successor is who signs for the one ring that a revocation is about.
func successor(t *testing.T, r api.RevokeResponse) api.Successor {
	t.Helper()
	if len(r.Successors) != 1 {
		t.Fatalf("successors %+v, want one", r.Successors)
	}
	return r.Successors[0]
}

// TestRevokeRing: every key of a ring in one step, on two rings. The other one
// goes on; who signs next is told and holds.
func TestRevokeRing(t *testing.T) {
	t.Parallel()
	s := emergency(t, "15s").edit("outage_budget: 4s", "outage_budget: 1m").edit("rings:\n", "rings:\n  - {name: ed, issuer: main, algorithm: EdDSA, rotate: \"@every 1h\", max_token_ttl: 5m}\n").
		edit("profiles:\n", "profiles:\n  - {name: ed, ring: ed, allow: [{socket: default}], subject: {pattern: \".+\"}, audiences: [\"*\"]}\n")
	d := s.start("web")
	d.canSign(30*time.Second, "ed")
	d.young("web")
	other := d.mustToken("ed")
	d.ok("rotate", "web", "--force", "--yes")
	d.young("web")
	bad := ringKids(d, "web")
	if len(bad) != 3 {
		t.Fatalf("keys %v, want an active, a standby and a retired one", bad)
	}

	before := d.facts()
	out := d.ok("revoke", "--ring", "web", "--all", "--dry-run")
	wants(t, out, append(bad, "Nobody signs for ring web until a new key has been read back from every required target and 16s have passed since")...)
	if d.facts() != before {
		t.Error("a dry run changed the manifest")
	}
	since := time.Now()
	d.ok("revoke", "--ring", "web", "--all", "--force", "--yes", "--reason", "the host was broken into")
	tok := d.mustToken("web")
	if slices.Contains(bad, tok.Kid) {
		t.Errorf("%s signs, which is revoked", tok.Kid)
	}
	for _, kid := range bad {
		s.dies(d, since, kid)
	}
	within(t, 30*time.Second, "the new key's token verifies with a fresh copy", func() error {
		return verifyWith(d.jwksURL(), tok.Token, "demo")
	})
	if err := verifyWith(d.jwksURL(), other.Token, "demo"); err != nil || d.mustToken("ed").Kid != other.Kid {
		t.Errorf("the other ring: %v", err)
	}

	var done api.RevokeResponse
	must(t, d.order("/v1/rings/web/revoke", api.RevokeRequest{Reason: "once more"}, &done))
	if len(done.Revoked) == 0 || len(done.AlreadyRevoked) != 3 || successor(t, done).Kind != api.SuccessorNone {
		t.Errorf("revoked once more: %+v", done)
	}
	if code := d.asks(ask("web")); code != api.NoActiveKey {
		t.Errorf("sign: %s, want %s", code, api.NoActiveKey)
	}
	within(t, time.Minute, "a new key signs", func() error {
		_, err := d.token(ask("web"))
		return err
	})
	if line := d.metric(`keyturn_revocations_total{issuer="main",ring="ed"}`); !strings.HasSuffix(line, " 0") {
		t.Errorf("metric %q", line)
	}
}

// ringKids are the keys of a ring that are in the set.
func ringKids(d *daemon, ring string) (kids []string) {
	d.t.Helper()
	for _, r := range d.issuer().Rings {
		for _, k := range r.Keys {
			if r.Name == ring && k.State != "withdrawn" && k.State != "revoked" {
				kids = append(kids, k.Kid)
			}
		}
	}
	return kids
}

// TestRevokeSeveral: keys of different rings in one write, and none of them
// where one is not known.
func TestRevokeSeveral(t *testing.T) {
	t.Parallel()
	s := emergency(t, "5s")
	d := s.start("web")
	a, b := d.mustToken("web"), d.young("web")
	before := d.facts()
	_, errs, code := d.revoke([]string{a.Kid, b.Kid, "nobody"}, "--yes", "--reason", "x")
	if code != 1 || !strings.Contains(errs, "nobody: no such key; nothing was revoked") || d.facts() != before {
		t.Errorf("exit code %d: %s", code, errs)
	}
	out, errs, code := d.revoke([]string{a.Kid, b.Kid}, "--yes", "--reason", "x", "-o", "json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	wants(t, out, `"kid": "`+a.Kid+`"`, `"kid": "`+b.Kid+`"`, `"kind": "none"`)
	s.dies(d, time.Now(), a.Kid)
	s.dies(d, time.Now(), b.Kid)
	within(t, time.Minute, "a new key signs", func() error {
		tok, err := d.token(ask("web"))
		if err == nil && (tok.Kid == a.Kid || tok.Kid == b.Kid) {
			err = errors.New("a revoked key signs")
		}
		return err
	})
}

// TestRevokeAdopted: a key that somebody else made leaves the set like one of
// keyturn's own, and does not come back with the set that it was found in.
func TestRevokeAdopted(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	s := emergency(t, "5s").edit("file: www/jwks.json", "file: www/jwks.json, adopt_until: "+until.Format(time.RFC3339))
	theirs := newForeignIssuer(t)
	must(t, os.WriteFile(s.path("www/jwks.json"), theirs.set, 0o644))
	d := s.start("web")
	bad, stays := theirs.kids[1], theirs.kids[0]
	adopted := func() (kids []string) {
		set := copyOf(t, d.jwksURL())
		for _, kid := range theirs.kids {
			if len(set.Key(kid)) > 0 {
				kids = append(kids, kid)
			}
		}
		return kids
	}
	if kids := adopted(); len(kids) != 2 {
		t.Fatalf("adopted are %v, want %v", kids, theirs.kids)
	}
	wants(t, d.ok("keys"), bad, "adopted", "withdrawn "+until.Format(time.RFC3339))
	out, errs, code := d.revoke([]string{bad}, "--dry-run", "-o", "json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	wants(t, out, `"tokens_until": "`+until.Format(time.RFC3339)+`"`, "No key signs that did not sign before")
	signs := d.mustToken("web").Kid
	if _, errs, code := d.revoke([]string{bad}, "--yes", "--reason", "leaked"); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	s.dies(d, time.Now(), bad)
	must(t, os.WriteFile(s.path("www/jwks.json"), theirs.set, 0o644))
	within(t, time.Minute, "the file is repaired", func() error {
		doc, err := os.ReadFile(s.path("www/jwks.json"))
		if err == nil && (!strings.Contains(string(doc), signs) || strings.Contains(string(doc), bad)) {
			err = fmt.Errorf("it holds\n%s", doc)
		}
		return err
	})
	if kids := adopted(); !slices.Equal(kids, []string{stays}) || d.mustToken("web").Kid != signs {
		t.Errorf("adopted are %v, want %s", kids, stays)
	}
	revokedAgain(t, d, bad)
}
