package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/api"
)

// emergency is a site whose schedule stays out of the way, and whose new keys
// are safe some seconds after the given consumer_cache.
func emergency(t *testing.T, cache string) *site {
	t.Helper()
	return newSite(t).edit("@every 10s", "@every 1h").edit("consumer_cache: 2s", "consumer_cache: "+cache).edit("max_token_ttl: 10s", "max_token_ttl: 5m")
}

// facts are what an issuer's manifest says of its keys, as text; a lease is
// renewed all the time.
func (d *daemon) facts() string {
	d.t.Helper()
	i := d.issuer()
	for _, r := range i.Rings {
		for k := range r.Keys {
			r.Keys[k].SignUntil = time.Time{}
		}
	}
	doc, err := json.Marshal(i.Rings)
	must(d.t, err)
	return string(doc)
}

// order posts an order to the admin socket.
func (d *daemon) order(path string, req, out any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	return call(overUnix(d.admin), http.MethodPost, "http://keyturn"+path, body, out)
}

// revoke runs keyturn revoke. A kid may begin with a minus sign.
func (d *daemon) revoke(kids []string, flags ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	args := append(d.sockets(append([]string{"revoke"}, flags...)...), "--")
	return cli(d.t, nil, append(args, kids...)...)
}

// refuses wants an order refused with a code, and returns the problem.
func (d *daemon) refuses(path string, req any, code api.Code) *api.Problem {
	d.t.Helper()
	var p *api.Problem
	if err := d.order(path, req, new(json.RawMessage)); !errors.As(err, &p) || p.Code != code {
		d.t.Fatalf("%s %+v: %v, want %s", path, req, err, code)
	}
	return p
}

// issuer is the one of a site.
func (d *daemon) issuer() api.Issuer {
	d.t.Helper()
	all, err := d.issuers()
	must(d.t, err)
	return all.Issuers[0]
}

// copyOf is a consumer's copy of a published set.
func copyOf(t *testing.T, at string) *jose.JSONWebKeySet {
	t.Helper()
	resp, err := http.Get(at)
	must(t, err)
	defer resp.Body.Close()
	set := &jose.JSONWebKeySet{}
	must(t, json.NewDecoder(resp.Body).Decode(set))
	return set
}

// young waits until a ring has a standby that is published and not safe yet.
func (d *daemon) young(ring string) api.Key {
	d.t.Helper()
	var k api.Key
	within(d.t, 30*time.Second, "a young standby", func() error {
		if k, _ = d.key(ring, "standby"); k.SafeAt.IsZero() {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	if !time.Now().Before(k.SafeAt.Add(-time.Second)) {
		d.t.Fatalf("standby %s was safe at %s: this machine is too slow for this test's clockwork", k.Kid, k.SafeAt)
	}
	return k
}

// dies waits until the endpoint and the file hold a kid no more, and says how
// long that took.
func (s *site) dies(d *daemon, since time.Time, kid string) {
	s.t.Helper()
	within(s.t, 30*time.Second, kid+" leaves the set", func() error {
		if len(copyOf(s.t, d.jwksURL()).Key(kid)) > 0 {
			return errors.New("the endpoint has it")
		}
		doc, err := os.ReadFile(s.path("www/jwks.json"))
		if err == nil && strings.Contains(string(doc), kid) {
			err = errors.New("the file has it")
		}
		return err
	})
	s.t.Logf("%s was out of endpoint and file %s after it was revoked", kid, time.Since(since).Round(time.Millisecond))
}

// TestEarlyRotation: it is refused with the time from which it is safe, and is
// safe then; by force it breaks what it said, and nothing else.
func TestEarlyRotation(t *testing.T) {
	t.Parallel()
	s := emergency(t, "15s")
	d := s.start("web")
	next := d.young("web")
	p := d.refuses("/v1/rings/web/rotate", api.RotateRequest{}, api.NotSafeYet)
	if p.SafeAt.Before(next.SafeAt) || p.SafeAt.Nanosecond() != 0 || p.SafeAt.Sub(next.SafeAt) >= time.Second {
		t.Errorf("safe_at %s, want %s in whole seconds and not before", p.SafeAt, next.SafeAt)
	}
	before := d.facts()
	var would api.RotateResponse
	must(t, d.order("/v1/rings/web/rotate", api.RotateRequest{Force: true, DryRun: true}, &would))
	if !would.DryRun || would.ActiveKid != next.Kid || len(would.Breaks) != 1 || !would.SafeAt.Equal(p.SafeAt) {
		t.Errorf("a dry run by force: %+v", would)
	}
	out, errs, code := cli(t, nil, d.sockets("rotate", "web", "--yes")...)
	if code != 1 || out != "" {
		t.Errorf("exit code %d\n%s", code, out)
	}
	wants(t, errs, "not_safe_yet", p.SafeAt.Format(time.RFC3339), "--force rotates all the same", "refuse its tokens, some of them until")
	if now := d.facts(); now != before {
		t.Errorf("what was refused, and the dry run, changed the manifest:\n%s\nbefore\n%s", now, before)
	}

	old := copyOf(t, d.jwksURL())
	d.ok("rotate", "web", "--force", "--yes", "--reason", "drill")
	forced(t, d, next.Kid, old)
	last := d.young("web")
	p = d.refuses("/v1/rings/web/rotate", api.RotateRequest{}, api.NotSafeYet)
	time.Sleep(time.Until(p.SafeAt))
	active := d.mustToken("web").Kid
	if out := d.ok("rotate", "web", "--yes", "--reason", "in time"); !strings.Contains(out, last.Kid+" signs now; "+active+" is retired") {
		t.Errorf("at the second that was told: %s", out)
	}
	asked := ordersIn(t, s)
	if want := []string{"rotate_asked allow force=<nil> in time", "rotate_asked allow force=true drill"}; !slices.Contains(asked, want[0]) || !slices.Contains(asked, want[1]) {
		t.Errorf("audit %q, want %q in it", asked, want)
	}
}

// forced: after one forced rotation, to a key that the old copy has, another to
// one that it lacks.
func forced(t *testing.T, d *daemon, kid string, old *jose.JSONWebKeySet) {
	t.Helper()
	if now := d.mustToken("web").Kid; now != kid {
		t.Fatalf("%s signs after the forced rotation to %s", now, kid)
	}
	if k, _ := d.key("web", "active"); k.ForcedAt.IsZero() {
		t.Errorf("the key does not tell that it was forced: %+v", k)
	}
	next := d.young("web")
	d.ok("rotate", "web", "--force", "--yes")
	tok := d.mustToken("web")
	if err := verifyCopy(tok.Token, *old); tok.Kid != next.Kid || err == nil {
		t.Errorf("%s signs, want %s; a consumer with a copy that lacks it: %v", tok.Kid, next.Kid, err)
	}
	if err := verifyWith(d.jwksURL(), tok.Token, "demo"); err != nil {
		t.Errorf("a consumer that reads the set again: %v", err)
	}
	if line := d.metric("keyturn_forced_activations_total"); !strings.HasSuffix(line, " 2") {
		t.Errorf("metric %q", line)
	}
}

// ordersIn are the records of orders.
func ordersIn(t *testing.T, s *site) (out []string) {
	t.Helper()
	for _, r := range records(t, s.path("audit.jsonl")) {
		if r["event"] != "sign" {
			out = append(out, fmt.Sprintf("%s %s force=%v %v", r["event"], r["decision"], r["force"], r["reason"]))
		}
	}
	return out
}

// TestRollback: back to the retired key and forward again, and never to a key
// that is closed.
func TestRollback(t *testing.T) {
	t.Parallel()
	s := emergency(t, "5s").edit("outage_budget: 4s", "outage_budget: 20s") // closed at most 23.5s after it was retired
	d := s.start("web")
	a, b := d.mustToken("web"), d.standby(30*time.Second, "web")
	signs := func(kid string) {
		t.Helper()
		tok := d.mustToken("web")
		if tok.Kid != kid {
			t.Errorf("%s signs, want %s", tok.Kid, kid)
		}
		for _, token := range []string{tok.Token, a.Token} {
			if err := verifyWith(d.jwksURL(), token, "demo"); err != nil {
				t.Error(err)
			}
		}
	}
	d.ok("rotate", "web", "--yes")
	signs(b.Kid)
	old := copyOf(t, d.jwksURL())
	if out := d.ok("rotate", "web", "--yes", "--to="+a.Kid, "--reason", "the new one is bad"); !strings.Contains(out, a.Kid+" signs now again; "+b.Kid+" is retired") {
		t.Errorf("rollback: %s", out)
	}
	signs(a.Kid)
	if err := verifyCopy(d.mustToken("web").Token, *old); err != nil {
		t.Errorf("a consumer with a copy from before the rollback: %v", err)
	}
	var again api.RotateResponse
	must(t, d.order("/v1/rings/web/rotate", api.RotateRequest{To: a.Kid}, &again))
	if again.ActiveKid != a.Kid || again.RetiredKid != "" || again.Reinstated || again.Changed {
		t.Errorf("rollback to the key that signs: %+v", again)
	}
	d.ok("rotate", "web", "--yes", "--to="+b.Kid)
	signs(b.Kid)
	if line := d.metric("keyturn_reinstatements_total"); !strings.HasSuffix(line, " 2") {
		t.Errorf("metric %q", line)
	}

	within(t, time.Minute, "the first key is closed", func() error {
		if k, found := d.key("web", "closed"); !found || k.Kid != a.Kid {
			return errors.New("not yet")
		}
		return nil
	})
	out, errs, code := cli(t, nil, d.sockets("rotate", "web", "--yes", "--force", "--to="+a.Kid)...)
	if code != 1 || out != "" {
		t.Errorf("rollback to a closed key: exit code %d %s", code, out)
	}
	wants(t, errs, "key_closed", "never signs again")
	d.refuses("/v1/rings/web/rotate", api.RotateRequest{To: "nobody"}, api.NotFound)
	d.refuses("/v1/rings/nobody/rotate", api.RotateRequest{}, api.NotFound)
	d.refuses("/v1/issuers/main/accept", api.AcceptRequest{}, api.NotFrozen)
	signs(b.Kid)
}

// TestRevoke: the active key, while the standby is proven. The new key signs
// when the answer is there, the old one is in no set, and its half is nowhere.
func TestRevoke(t *testing.T) {
	t.Parallel()
	s := emergency(t, "5s")
	d := s.start("web")
	bad, next := d.mustToken("web"), d.standby(30*time.Second, "web")
	old := copyOf(t, d.jwksURL())
	half := s.path("custody/issuers/main/keys/" + bad.Kid + ".sealed")
	if _, err := os.Stat(half); err != nil {
		t.Fatal(err)
	}

	before := d.facts()
	out, _, _ := d.revoke([]string{bad.Kid}, "--dry-run")
	wants(t, out, "ring web: "+next.Kid+" would sign; every consumer knows it", "consumers: unknown kid", "file file")
	if strings.Contains(out, "cut off") {
		t.Errorf("one process has nothing to be cut off from:\n%s", out)
	}
	d.refuses("/v1/keys/"+bad.Kid+"/revoke", api.RevokeRequest{}, api.InvalidRequest) // no reason
	d.refuses("/v1/keys/nobody/revoke", api.RevokeRequest{Reason: "x"}, api.NotFound)
	d.refuses("/v1/revoke", api.RevokeRequest{Reason: "x", Kids: []string{bad.Kid, "nobody"}}, api.NotFound)
	if now := d.facts(); now != before || d.mustToken("web").Kid != bad.Kid {
		t.Errorf("dry run and refusals changed something:\n%s\nbefore\n%s", now, before)
	}

	var done api.RevokeResponse
	since := time.Now()
	must(t, d.order("/v1/keys/"+bad.Kid+"/revoke", api.RevokeRequest{Reason: "found in a backup"}, &done))
	tok := d.mustToken("web")
	if tok.Kid != next.Kid || !done.Changed || successor(t, done).Kid != next.Kid || successor(t, done).Kind != api.SuccessorStandby {
		t.Errorf("%s signs after %+v, want %s", tok.Kid, done, next.Kid)
	}
	s.dies(d, since, bad.Kid)
	within(t, 30*time.Second, "the half is destroyed", func() error {
		_, err := os.Stat(half)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("stat: %v", err)
	})
	if err := verifyWith(d.jwksURL(), bad.Token, "demo"); err == nil {
		t.Error("a token of the revoked key verifies with a fresh copy")
	}
	if err := verifyCopy(bad.Token, *old); err != nil {
		t.Errorf("with an old copy: %v", err) // or the line above says nothing
	}
	if err := verifyWith(d.jwksURL(), tok.Token, "demo"); err != nil {
		t.Errorf("the new key's token: %v", err)
	}
	if err := verifyCopy(tok.Token, *old); err != nil {
		t.Errorf("the new key's token, with the oldest copy: %v", err)
	}
	revokedAgain(t, d, bad.Kid)
	d.refuses("/v1/rings/web/rotate", api.RotateRequest{To: bad.Kid, Force: true}, api.KeyClosed)
	s.restartsWithout(d, bad.Kid)
	asked := ordersIn(t, s)
	if n := len(slices.DeleteFunc(asked, func(r string) bool { return !strings.HasSuffix(r, "found in a backup") })); n != 2 {
		t.Errorf("%d records of the revocation, want that it was asked and that it was done", n)
	}
}

// revokedAgain: to repeat it is fine and changes nothing.
func revokedAgain(t *testing.T, d *daemon, kid string) {
	t.Helper()
	var again api.RevokeResponse
	must(t, d.order("/v1/keys/"+url.PathEscape(kid)+"/revoke", api.RevokeRequest{Reason: "again"}, &again))
	if again.Changed || !slices.Equal(again.AlreadyRevoked, []string{kid}) {
		t.Errorf("revoked again: %+v", again)
	}
	if out, errs, code := d.revoke([]string{kid}, "--yes", "--reason", "again"); code != 0 || !strings.Contains(out, "nothing changes: revoked before: "+kid) {
		t.Errorf("revoked again: exit code %d, %s%s", code, out, errs)
	}
	if line := d.metric("keyturn_revocations_total"); !strings.Contains(line, " 1") {
		t.Errorf("metric %q", line)
	}
}

// restartsWithout: a restart brings a revoked key back to nowhere.
func (s *site) restartsWithout(d *daemon, kid string) {
	s.t.Helper()
	d.stop()
	d = s.start("web")
	if k, found := d.key("web", "revoked"); !found || k.Kid != kid || k.RevokedAt.IsZero() || k.DestroyedAt.IsZero() {
		s.t.Errorf("revoked key after a restart: %+v", k)
	}
	if len(copyOf(s.t, d.jwksURL()).Key(kid)) > 0 || d.mustToken("web").Kid == kid {
		s.t.Errorf("%s is back after a restart", kid)
	}
}
