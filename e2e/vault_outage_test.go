package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// slowly is a clockwork that outlives a restart of Vault: the lease runs 30 s
// ahead, so that S is 42.25s and a new key waits 45.25s of 50.
func (s *vaultSite) slowly() *vaultSite {
	s.edit("outage_budget: 10s", "outage_budget: 30s").edit("@every 28s", "@every 50s")
	return s
}

// degradedWithin: mostly it takes two seconds; a write whose reply is missing
// is repeated for 15 before it counts as failed.
const degradedWithin = 22 * time.Second

// TestVaultOutage: Vault is killed just before a rotation is due, then hangs,
// then is sealed. Signing and the endpoint go on; what is wrong is said; what
// was due happens once.
func TestVaultOutage(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	s := newVaultSite(t, server, server.Mount(t), "all").slowly()
	d := s.start("web")
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	due := nextRotation(t, d)
	time.Sleep(time.Until(due.Add(-3 * time.Second)))
	standby := d.standby(10*time.Second, "web")
	old, counted := tr.signer("web"), d.rotations("web")

	server.Kill()
	d.reason(degradedWithin, "degraded", "store_unavailable", "connection refused")
	time.Sleep(time.Until(due.Add(5 * time.Second)))
	d.outageShows(t, tr, old, "connection refused")
	if late := d.metric(`keyturn_rotation_overdue{issuer="main",ring="web"}`); !strings.HasSuffix(late, " 1") {
		t.Errorf("the rotation that is due does not show: %q", late)
	}
	server.Restart(t)
	back := time.Now()
	d.reason(25*time.Second, "ok", "", "")
	t.Logf("all is well %s after Vault's return", time.Since(back).Round(100*time.Millisecond))
	within(t, 5*time.Second, "the due rotation", func() error {
		if kid := tr.signer("web"); kid != standby.Kid {
			return fmt.Errorf("%s signs, want %s", kid, standby.Kid)
		}
		return nil
	})

	hangsAndIsSealed(t, server, d, tr, standby.Kid)
	// Once, and not again: the next run is 50 s after the late one.
	m, _ := s.manifest("main", 0)
	if got := m.activated("web"); len(got) != 2 || !slices.Contains(got, old) || !slices.Contains(got, standby.Kid) {
		t.Errorf("keys %v were active, want %s and %s", got, old, standby.Kid)
	}
	if n := d.rotations("web"); n != counted+1 {
		t.Errorf("%d rotations counted, %d before the outage", n, counted)
	}
	tr.end()
	if tr.slowest > time.Second {
		t.Errorf("a token took %s", tr.slowest)
	}
	// A Vault that hangs does not keep the daemon from ending.
	server.Pause()
	time.Sleep(time.Second)
	ending := time.Now()
	d.stop()
	if took := time.Since(ending); took > 10*time.Second {
		t.Errorf("it took %s to end while Vault hangs", took)
	} else {
		t.Logf("ended within %s while Vault hangs", took.Round(100*time.Millisecond))
	}
}

func hangsAndIsSealed(t *testing.T, server *vaulttest.Server, d *daemon, tr *traffic, kid string) {
	t.Helper()
	within(t, 10*time.Second, "the next standby key, published", func() error {
		if k, found := d.key("web", "standby"); !found || len(k.WaitingFor) > 0 {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	server.Pause()
	d.reason(degradedWithin, "degraded", "store_unavailable", "deadline exceeded")
	time.Sleep(4 * time.Second)
	d.outageShows(t, tr, kid, "deadline exceeded")
	server.Resume()
	d.reason(25*time.Second, "ok", "", "")
	server.Seal(t)
	d.reason(degradedWithin, "degraded", "store_unavailable", "sealed")
	d.outageShows(t, tr, kid, "sealed")
	server.Unseal(t)
	d.reason(25*time.Second, "ok", "", "")
}

// outageShows wants a daemon that signs on while it says why it is degraded.
func (d *daemon) outageShows(t *testing.T, tr *traffic, kid, why string) {
	t.Helper()
	if status, h, err := d.health("/readyz/signer"); err != nil || status != http.StatusOK || h.Status != "ok" {
		t.Errorf("/readyz/signer: status %d, %+v, %v", status, h, err)
	}
	if status, h, err := d.health("/livez"); err != nil || status != http.StatusOK {
		t.Errorf("/livez: status %d, %+v, %v", status, h, err)
	}
	if now := tr.signer("web"); now != kid {
		t.Errorf("%s signs during the outage, %s did before", now, kid)
	}
	said := strings.Split(d.out.String(), "\n")
	if !slices.ContainsFunc(said, func(l string) bool { return strings.Contains(l, "store_unavailable") && strings.Contains(l, why) }) {
		t.Errorf("no line of the log says store_unavailable and %q", why)
	}
	if a := d.metric(`keyturn_alarms{code="store_unavailable"}`); !strings.HasSuffix(a, " 1") {
		t.Errorf("alarm in the metrics: %q", a)
	}
	out, _, code := cli(t, nil, "status", "--admin-socket", d.admin)
	if code != 0 || !strings.Contains(out, why) {
		t.Errorf("keyturn status: exit code %d, no %q in\n%s", code, why, out)
	}
}

func nextRotation(t *testing.T, d *daemon) time.Time {
	t.Helper()
	all, err := d.issuers()
	must(t, err)
	next := all.Issuers[0].Rings[0].NextRotation
	if in := time.Until(next); in <= 0 || in > 2*time.Minute {
		t.Fatalf("the next rotation is in %s", in)
	}
	return next
}

// TestVaultDownAtStart: a daemon that starts before its Vault waits and says
// so; one that has been here before serves the last public set meanwhile.
func TestVaultDownAtStart(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	s := newVaultSite(t, server, server.Mount(t), "all").slowly()
	server.Kill()
	d := s.run()
	d.reason(15*time.Second, "unavailable", "store_unavailable", "connection refused")
	d.cannotSign(t)
	if status := getStatus(t, d.jwksURL()); status != http.StatusServiceUnavailable {
		t.Errorf("the endpoint of a daemon that knows nothing answers %d", status)
	}
	server.Restart(t)
	back := time.Now()
	d.canSign(30*time.Second, "web")
	t.Logf("the first token %s after Vault's return", time.Since(back).Round(100*time.Millisecond))
	d.reason(10*time.Second, "ok", "", "")
	before := d.mustToken("web")
	d.stop()

	server.Kill()
	d = s.run()
	d.reason(15*time.Second, "degraded", "store_unavailable", "connection refused")
	d.cannotSign(t)
	if err := verifyWith(d.jwksURL(), before.Token, "demo"); err != nil {
		t.Errorf("the token of before the restart: %v", err)
	}
	out, stderr, code := cli(t, nil, "verify", "--jwks", s.path("jwks.json"), "--audience", "demo", before.Token)
	if code != 0 {
		t.Errorf("keyturn verify with the file of before: exit code %d: %s%s", code, out, stderr)
	}
	server.Restart(t)
	d.canSign(30*time.Second, "web")
	if after := d.mustToken("web"); after.Kid != before.Kid {
		t.Errorf("kid %s signs after the restart, %s did before", after.Kid, before.Kid)
	}
	d.reason(10*time.Second, "ok", "", "")
}

// cannotSign wants an answer that tells clients to try again, and a daemon that
// is alive.
func (d *daemon) cannotSign(t *testing.T) {
	t.Helper()
	_, err := d.token(ask("web"))
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusServiceUnavailable {
		t.Errorf("sign: %v, want 503", err)
	}
	if status, h, err := d.health("/readyz/signer"); err != nil || status != http.StatusServiceUnavailable || len(h.Reasons) == 0 {
		t.Errorf("/readyz/signer: status %d, %+v, %v", status, h, err)
	}
	if status, h, err := d.health("/livez"); err != nil || status != http.StatusOK {
		t.Errorf("/livez: status %d, %+v, %v", status, h, err)
	}
}

func getStatus(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	must(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}
