package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// storeFault is a Vault that is there and of no use.
type storeFault struct {
	name string
	// start begins it and returns what ends it.
	start func(t *testing.T, s *vaultSite, w *wire) (end func())
	// code and text are what health says of it; no code: it is only slow.
	code, text string
}

// storeFaults are those of faults.md, row 9. A Vault that is gone, hangs or is
// sealed and a rotation that is due then are TestVaultOutage's.
var storeFaults = []storeFault{
	{"sealed", func(t *testing.T, s *vaultSite, _ *wire) func() {
		s.vault.Seal(t)
		return func() { s.vault.Unseal(t) }
	}, "store_unavailable", "sealed"},
	{"denying", func(t *testing.T, s *vaultSite, _ *wire) func() {
		role := s.vault.Read(t, "auth/approle/role/"+s.role.Name)
		policy := "sys/policies/acl/" + role.Data["token_policies"].([]any)[0].(string)
		text := s.vault.Read(t, policy).Data["policy"]
		s.vault.Write(t, policy, map[string]any{"policy": `path "nothing" { capabilities = ["read"] }`})
		return func() { s.vault.Write(t, policy, map[string]any{"policy": text}) }
	}, "store_denied", "403"},
	{"limiting", func(t *testing.T, s *vaultSite, _ *wire) func() {
		quota := "sys/quotas/rate-limit/" + s.mount
		s.vault.Write(t, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
		s.vault.Write(t, quota, map[string]any{"path": s.mount + "/", "rate": 0.001, "interval": "1s", "block_interval": "25s"})
		return func() {
			_, err := s.vault.Client().Logical().Delete(quota)
			must(t, err)
		}
	}, "store_unavailable", "429"},
	{"slow", func(_ *testing.T, _ *vaultSite, w *wire) func() {
		w.poison("latency", map[string]any{"latency": 1200, "jitter": 200})
		return w.heal
	}, "", ""},
	{"too slow", func(_ *testing.T, _ *vaultSite, w *wire) func() {
		w.poison("latency", map[string]any{"latency": 6000})
		return w.heal
	}, "store_unavailable", "deadline exceeded"},
	{"half-open", func(_ *testing.T, _ *vaultSite, w *wire) func() {
		w.poison("timeout", map[string]any{"timeout": 0})
		return w.heal
	}, "store_unavailable", "deadline exceeded"},
	{"breaking off", func(_ *testing.T, _ *vaultSite, w *wire) func() {
		w.poison("limit_data", map[string]any{"bytes": 150})
		return w.heal
	}, "store_unavailable", "EOF"},
}

// TestFaultStore: whatever Vault does instead of answering, signing goes on at
// its pace, health says why, Vault is asked once in ten seconds and not before
// the time that it asked for itself, and all is well when it is.
func TestFaultStore(t *testing.T) {
	t.Parallel()
	for _, f := range storeFaults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			server := sharedVault(t)
			if f.name == "sealed" {
				server = vaulttest.Start(t)
			}
			s := newVaultSite(t, server, server.Mount(t), "all")
			// As in production it looks every ten seconds; nothing rotates here.
			s.edit("sync_interval: 500ms", "sync_interval: 10s").edit("outage_budget: 10s", "outage_budget: 2m").edit("@every 28s", "@every 4m")
			w, counter := s.wired()
			d := s.start("web")
			d.reason(15*time.Second, "ok", "", "")
			d.standbyLoaded()
			tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
			before, kid := d.fastest(), tr.signer("web")
			end := f.start(t, s, w)
			if f.code == "" {
				d.lives(t, s, before, f.name)
			} else {
				d.endures(t, f, counter, before, kid)
			}
			end()
			d.reason(60*time.Second, "ok", "", "")
			d.alarmed("store_unavailable", false)
			d.alarmed("store_denied", false)
			if now := tr.signer("web"); now != kid {
				t.Errorf("%s signs, %s did before", now, kid)
			}
			tr.end()
		})
	}
}

// standbyLoaded waits until nothing more has to be read than the manifest.
func (d *daemon) standbyLoaded() {
	d.t.Helper()
	within(d.t, 20*time.Second, "both halves loaded", func() error {
		if n := strings.Count(d.out.String(), `"msg":"loaded private half"`); n < 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
}

// lives wants leases renewed through a Vault that is merely slow.
func (d *daemon) lives(t *testing.T, s *vaultSite, before time.Duration, how string) {
	t.Helper()
	was, _ := s.manifest("main", 0)
	d.signsAsFast(before, how)
	within(t, 60*time.Second, "two renewals of the lease", func() error {
		if now, _ := s.manifest("main", 0); now.Generation < was.Generation+2 || !now.Lease.After(was.Lease) {
			return fmt.Errorf("generation %d, before %d", now.Generation, was.Generation)
		}
		if status, h, err := d.health("/readyz"); err != nil || status != http.StatusOK || h.Status != "ok" {
			t.Errorf("/readyz: status %d, %+v, %v", status, h, err)
		}
		return nil
	})
	d.signsAsFast(before, how)
}

// endures wants what faults.md asks for of a Vault that does not serve.
func (d *daemon) endures(t *testing.T, f storeFault, counter *vaulttest.Proxy, before time.Duration, kid string) {
	t.Helper()
	d.reason(40*time.Second, "degraded", f.code, f.text)
	seen, mark := len(counter.Seen()), time.Now()
	d.signsAsFast(before, f.name)
	d.alarmed(f.code, true)
	if line := d.metric("keyturn_store_errors_total{"); line == "" {
		t.Error("no keyturn_store_errors_total")
	}
	if status, h, err := d.health("/readyz/signer"); err != nil || status != http.StatusOK {
		t.Errorf("/readyz/signer: status %d, %+v, %v", status, h, err)
	}
	const look = 25 * time.Second
	time.Sleep(time.Until(mark.Add(look)))
	tries := map[string]int{}
	for _, s := range counter.Seen()[seen:] {
		tries[s.Verb+" "+s.Path]++
	}
	t.Logf("asked within %s: %v", look, tries)
	for what, n := range tries {
		if most := int(look/(9*time.Second)) + 1; n > most {
			t.Errorf("%s: %d tries within %s, want %d at most", what, n, look, most)
		}
	}
	askedToWait(t, counter.Seen())
	if line := d.metric("keyturn_lease_expiry_timestamp_seconds"); line == "" {
		t.Error("no keyturn_lease_expiry_timestamp_seconds")
	}
	if now := d.mustToken("web"); now.Kid != kid {
		t.Errorf("%s signs, %s did before", now.Kid, kid)
	}
}

// askedToWait: nothing comes before the time is over that Retry-After named.
func askedToWait(t *testing.T, seen []vaulttest.Seen) {
	t.Helper()
	for i, s := range seen {
		wait, err := strconv.Atoi(s.RetryAfter)
		if err != nil || s.Status != http.StatusTooManyRequests {
			continue
		}
		for _, next := range seen[i+1:] {
			// What was on its way then could not know.
			if early := next.At.Sub(s.Done); early > 50*time.Millisecond && early < time.Duration(wait)*time.Second-100*time.Millisecond {
				t.Errorf("%s %s came %s after an answer that asked to wait %d s", next.Verb, next.Path, early.Round(100*time.Millisecond), wait)
			}
		}
	}
}
