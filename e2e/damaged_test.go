package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// damage harms private halves in Vault, as only somebody with more rights than
// keyturn's can.
type damage struct{ *secrets }

// takeAway leaves nothing of a half.
func (d damage) takeAway(kid string) {
	d.t.Helper()
	if status, _ := d.get(http.MethodDelete, d.path("metadata", kid)); status != http.StatusNoContent {
		d.t.Fatalf("metadata of %s not deleted: status %d", kid, status)
	}
}

// exchange puts the half of another key in the place of one.
func (d damage) exchange(kid, other string) {
	d.t.Helper()
	d.collect()
	if d.texts[other] == "" {
		d.t.Fatalf("no half of %s", other)
	}
	_, err := d.vault.Client().Logical().Write(d.path("data", kid), map[string]any{
		"data": map[string]any{"private_key": d.texts[other]}, "options": map[string]any{"cas": 1},
	})
	must(d.t, err)
}

// replaced waits until a ring has another standby than the damaged one, which
// any of the daemons may have made, and returns it.
func replaced(t *testing.T, limit time.Duration, d *daemon, bad string) api.Key {
	t.Helper()
	var next api.Key
	within(t, limit, "another standby than "+bad, func() error {
		var found bool
		if next, found = d.key("web", "standby"); !found || next.Kid == bad {
			return fmt.Errorf("standby %+v", next)
		}
		return nil
	})
	return next
}

// said waits until one of the daemons has logged a line with all of these texts.
func said(t *testing.T, limit time.Duration, daemons []*daemon, texts ...string) {
	t.Helper()
	within(t, limit, "a line of the log", func() error {
		for _, d := range daemons {
			for line := range strings.Lines(d.out.String()) {
				if holdsAll(line, texts) {
					return nil
				}
			}
		}
		return fmt.Errorf("nobody says %q", texts)
	})
}

func holdsAll(line string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(line, text) {
			return false
		}
	}
	return true
}

// rarely is newFleet's clockwork with time for a look at the halves, which
// comes every 15 s, and the lead of what replaces one.
func (s *vaultSite) rarely(period string) {
	s.set("outage_budget", "5s").set("max_token_ttl", "4s").set("rotate", `"@every `+period+`"`).
		edit(`audiences: ["*"]`, "audiences: [\"*\"]\n    ttl: {default: 3s}")
}

// TestDamagedStandby: somebody takes the standby's half away. The replicas
// notice by looking, another standby takes its place, and the next rotation is
// on time, with that one.
func TestDamagedStandby(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 2)
	var daemons []*daemon
	for _, s := range sites {
		s.rarely("50s")
		daemons = append(daemons, s.start("web"))
	}
	tr := watched(t, daemons...)
	root := damage{newSecrets(sites[0], "main")}
	active, due := tr.signer("replica 0"), nextRotation(t, daemons[0])
	bad := daemons[0].publishedStandby()
	root.takeAway(bad.Kid)
	next := replaced(t, 40*time.Second, daemons[0], bad.Kid)
	said(t, 5*time.Second, daemons, `"ERROR"`, `"key_damaged"`, bad.Kid)
	if counted := daemons[0].damagedKeys() + daemons[1].damagedKeys(); counted != 1 {
		t.Errorf("%d damaged keys are counted", counted)
	}
	if now := tr.signer("replica 0"); now != active {
		t.Errorf("%s signs, and only the standby was damaged", now)
	}
	for i, d := range daemons {
		within(t, time.Until(due)+20*time.Second, "the next rotation", func() error {
			if kid := tr.signer(fmt.Sprint("replica ", i)); kid != next.Kid {
				return fmt.Errorf("replica %d signs with %s, want %s", i, kid, next.Kid)
			}
			return nil
		})
		if strings.Contains(d.out.String(), "rotation_overdue") {
			t.Errorf("the rotation of replica %d was late", i)
		}
		d.reason(10*time.Second, "ok", "", "")
	}
	m, _ := sites[0].manifest("main", 0)
	for _, k := range m.Keys {
		if k.JWK.Kid == next.Kid && k.Activated.Before(due) {
			t.Errorf("rotated at %s, due was %s", k.Activated, due)
		}
		if k.JWK.Kid == bad.Kid && (!k.Activated.IsZero() || k.Closed.IsZero()) {
			t.Errorf("the damaged key: %+v", k)
		}
	}
	tr.end()
}

// damagedKeys is how many keys the daemon replaced for their halves.
func (d *daemon) damagedKeys() int {
	d.t.Helper()
	var n int
	line := d.metric(`keyturn_damaged_keys_total{issuer="main",ring="web"}`)
	if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
		d.t.Fatalf("%q: %v", line, err)
	}
	return n
}

// publishedStandby waits for a standby that was read back everywhere.
func (d *daemon) publishedStandby() api.Key {
	d.t.Helper()
	var k api.Key
	within(d.t, 15*time.Second, "a published standby", func() error {
		var found bool
		if k, found = d.key("web", "standby"); !found || len(k.WaitingFor) > 0 {
			return fmt.Errorf("%+v", k)
		}
		return nil
	})
	return k
}

// TestExchangedStandby: the standby's half is overwritten with another key's.
// Who has it in memory goes on; who loads it next notices that it does not
// match, never signs with it, and makes another standby.
func TestExchangedStandby(t *testing.T) {
	t.Parallel()
	s := replicaSites(t, 1)[0]
	s.rarely("50s")
	d := s.start("web")
	root := damage{newSecrets(s, "main")}
	active, bad := d.mustToken("web").Kid, d.publishedStandby()
	root.exchange(bad.Kid, active)
	d.stop()
	d = s.start("web")
	next := replaced(t, 20*time.Second, d, bad.Kid)
	said(t, 5*time.Second, []*daemon{d}, `"ERROR"`, `"private half not loaded"`, bad.Kid, "do not match")
	said(t, 5*time.Second, []*daemon{d}, `"ERROR"`, `"key_damaged"`, bad.Kid)
	if now := d.mustToken("web").Kid; now != active {
		t.Errorf("%s signs, and only the standby was damaged", now)
	}
	// What stands in its place is destroyed as its own half would have been.
	root.end(20*time.Second, bad.Kid)
	if k, _ := d.key("web", "standby"); k.Kid != next.Kid {
		t.Errorf("standby %s, a moment ago %s", k.Kid, next.Kid)
	}
	d.reason(10*time.Second, "ok", "", "")
}

// TestDamagedActive: somebody takes the active key's half away. The replicas
// have it in memory and never stop to sign; they rotate to the proven standby
// before the time. When that happens again, nobody stands by who is proven, and
// the half of the key before is gone as well: who has the half signs on, and one
// that starts now waits for the standby's proof.
func TestDamagedActive(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 2)
	var daemons []*daemon
	for _, s := range sites {
		s.rarely("5m")
		daemons = append(daemons, s.start("web"))
	}
	tr := watched(t, daemons...)
	root := damage{newSecrets(sites[0], "main")}
	first, standby := tr.signer("replica 0"), daemons[0].standby(40*time.Second, "web")
	root.takeAway(first)
	for i, d := range daemons {
		within(t, 40*time.Second, "an early rotation", func() error {
			if kid := tr.signer(fmt.Sprint("replica ", i)); kid != standby.Kid {
				return fmt.Errorf("replica %d signs with %s", i, kid)
			}
			return nil
		})
		d.reason(15*time.Second, "ok", "", "")
	}
	said(t, 5*time.Second, daemons, `"key_activated"`, standby.Kid)
	said(t, 5*time.Second, daemons, `"ERROR"`, `"key_damaged"`, first)

	// Again, before the next standby is proven.
	unproven := daemons[0].publishedStandby()
	if unproven.SafeAt.Before(time.Now().Add(5 * time.Second)) {
		t.Fatalf("standby %+v: this machine is too slow to find it unproven", unproven)
	}
	root.takeAway(standby.Kid)
	tr.without(func() { tr.callers, tr.endpoints = tr.callers[:1], tr.endpoints[:1] })
	daemons[1].stop()
	restarted := sites[1].run()
	restarted.reason(20*time.Second, "degraded", "key_missing", "find out who took it away")
	restarted.reason(20*time.Second, "degraded", "half_damaged", standby.Kid)
	restarted.alarmed("half_damaged", true)
	if n := restarted.metric(`keyturn_damaged_halves{issuer="main",ring="web"}`); n == "" || strings.HasSuffix(n, " 0") {
		t.Errorf("metric %q", n)
	}
	_, err := restarted.token(ask("web"))
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.Unavailable || p.Status != http.StatusServiceUnavailable {
		t.Errorf("without a half, before the standby is proven: %v", err)
	}
	if now := tr.signer("replica 0"); now != standby.Kid {
		t.Errorf("%s signs at the one that has the half", now)
	}
	restarted.canSign(time.Until(unproven.SafeAt)+20*time.Second, "web")
	if tok := restarted.mustToken("web"); tok.Kid != unproven.Kid || time.Now().Before(unproven.SafeAt) {
		t.Errorf("%s signs, want %s from %s on", tok.Kid, unproven.Kid, unproven.SafeAt)
	}
	restarted.reason(15*time.Second, "ok", "", "")
	tr.end()
}

// TestDamagedOnLocalCustody: the same with files: a sealed half that is cut off
// is noticed at the next start, one that is gone by looking.
func TestDamagedOnLocalCustody(t *testing.T) {
	t.Parallel()
	m := onLocal(t)
	m.edit("@every 10s", "@every 5m")
	sealed := func(kid string) string { return m.path("custody/issuers/main/keys/" + kid + ".sealed") }
	d := m.start("web")
	active, bad := m.settles(d, 20*time.Second)
	must(t, os.Truncate(sealed(bad), 60))
	d.stop()
	d = m.start("web")
	tr := m.follow()
	next := replaced(t, 20*time.Second, d, bad)
	said(t, 5*time.Second, []*daemon{d}, `"private half not loaded"`, bad, "do not match")
	within(t, 20*time.Second, "the end of what was cut off", func() error { return m.ended(bad) })
	if now := tr.signer("web"); now != active {
		t.Errorf("%s signs, and only the standby was damaged", now)
	}

	d.standby(20*time.Second, "web")
	must(t, os.Remove(sealed(active)))
	within(t, 40*time.Second, "an early rotation", func() error {
		if kid := tr.signer("web"); kid != next.Kid {
			return fmt.Errorf("%s signs", kid)
		}
		return nil
	})
	said(t, 5*time.Second, []*daemon{d}, `"key_activated"`, next.Kid)
	m.settles(d, 20*time.Second)
	d.reason(15*time.Second, "ok", "", "")
	tr.end()
}

// TestDamagedActiveAfterARestart: the active key's half is gone before anybody
// who has it in memory, and nobody stands by who is proven. Who starts then
// signs with the key before, within its lease.
func TestDamagedActiveAfterARestart(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 10m").edit("consumer_cache: 2s", "consumer_cache: 40s").edit("outage_budget: 4s", "outage_budget: 1m")
	d := s.start("web")
	old := d.mustToken("web").Kid
	d.ok("rotate", "web", "--force", "--yes")
	within(t, 10*time.Second, "the next key", func() error {
		if d.mustToken("web").Kid == old {
			return errors.New("it does not sign yet")
		}
		return nil
	})
	active := d.mustToken("web").Kid
	d.publishedStandby()
	d.stop()
	must(t, os.Remove(s.path("custody/issuers/main/keys/"+active+".sealed")))
	d = s.start("web")
	d.reason(10*time.Second, "degraded", "key_missing", "while the previous key signs on within its lease")
	if tok := d.mustToken("web"); tok.Kid != old {
		t.Errorf("%s signs, want %s, the key before %s", tok.Kid, old, active)
	}
	if code, h, err := d.health("/readyz/signer"); err != nil || code != http.StatusOK {
		t.Errorf("/readyz/signer: %d %+v %v", code, h, err)
	}
}
