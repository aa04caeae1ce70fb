package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// sixRings rotate once a minute each, one of them every ten seconds. Vault may
// be away for 40 s: an election, and the pause of a loop that has failed a few
// times, fit in. So S is 50.5s and a new key waits 52.5s.
func (s *vaultSite) sixRings() []string {
	var names []string
	rings, profiles := "", ""
	for i, name := range []string{"web", "second", "third", "fourth", "fifth", "sixth"} {
		names = append(names, name)
		rings += fmt.Sprintf("  - {name: %s, issuer: main, algorithm: ES256, rotate: \"%d * * * * *\", max_token_ttl: 2s}\n", name, 10*i)
		if i > 0 {
			profiles += fmt.Sprintf("  - {name: %s, ring: %s, allow: [{socket: default}], subject: {pattern: \"^[a-z]+$\"}, audiences: [\"*\"]}\n", name, name)
		}
	}
	s.edit("  - {name: web, issuer: main, algorithm: ES256, rotate: \"@every 28s\", max_token_ttl: 5s}\n", rings)
	s.edit("profiles:\n", "profiles:\n"+profiles).edit("outage_budget: 10s", "outage_budget: 40s").edit("consumer_cache: 2s", "consumer_cache: 1s").edit("jwks_max_age: 2s", "jwks_max_age: 1s")
	return names
}

// TestFaultLeader: three Vaults in a cluster, whose leader steps down or is
// killed each time while a replica writes the manifest: when the issuer is
// founded, while keys are made, and when they turn over. What was acknowledged
// is there, what was not is found out; one chain, one standby a ring, and nobody
// who signs or verifies notices.
func TestFaultLeader(t *testing.T) {
	t.Parallel()
	cluster := vaulttest.StartCluster(t)
	strikes := &striker{cluster: cluster}
	sites, rings := clusterSites(t, cluster, strikes)
	stepDown := func() error { _, err := cluster.StepDown(); return err }

	strikes.at("founding", 2, false, stepDown)
	daemons := []*daemon{sites[0].run(), sites[1].run()}
	strikes.done(t)
	for _, d := range daemons {
		for _, ring := range rings {
			d.canSign(60*time.Second, ring)
		}
	}
	tr := watchedRings(t, daemons, rings)

	dead := -1
	strikes.at("keys are made", 1, false, func() (err error) {
		if dead, err = cluster.Leader(); err == nil {
			cluster.Kill(dead)
		}
		return err
	})
	strikes.done(t)
	wellAgain(t, daemons)
	must(t, cluster.Restart(dead))
	ready(t, cluster)

	// All rings are due by then, and their keys may sign in the same moment:
	// the write that says so finds nobody who leads.
	time.Sleep(time.Until(safe(t, daemons[0])))
	strikes.at("rotations", 1, true, stepDown)
	strikes.done(t)
	within(t, 60*time.Second, "a rotation of every ring at every replica", func() error {
		for _, c := range tr.callers {
			if kids := tr.signers(c.name); len(kids) != 2 {
				return fmt.Errorf("%s: signed by %v", c.name, kids)
			}
		}
		return nil
	})
	wellAgain(t, daemons)
	tr.end()
	said := ""
	for _, d := range daemons {
		d.stop()
		said += d.out.String()
	}
	wants(t, said, "write to vault without a definite answer; it is repeated")
	oneChain(t, sites[0])
	m, _ := sites[0].manifest("main", 0)
	for _, ring := range rings {
		if got := m.activated(ring); len(got) != 2 {
			t.Errorf("ring %s: keys %v were active, want two", ring, got)
		}
	}
}

// watchedRings starts traffic in every ring of every replica.
func watchedRings(t *testing.T, daemons []*daemon, rings []string) *traffic {
	t.Helper()
	tr := &traffic{t: t, cache: time.Second}
	for i, d := range daemons {
		tr.endpoints = append(tr.endpoints, d.jwksURL())
		for _, ring := range rings {
			tr.callers = append(tr.callers, caller{fmt.Sprint(ring, " of replica ", i), d, ask(ring)})
		}
	}
	return startTraffic(tr)
}

// clusterSites are two replicas that talk to whichever node answers.
func clusterSites(t *testing.T, cluster *vaulttest.Cluster, strikes *striker) ([]*vaultSite, []string) {
	t.Helper()
	front := cluster.Front()
	mount := front.Unique("cluster")
	front.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
	var sites []*vaultSite
	var rings []string
	for i := range 2 {
		s := newVaultSite(t, front, mount, "all")
		rings = s.sixRings()
		strikes.watch(s.counted())
		if i > 0 {
			s.edit("url: http://"+s.public, "url: http://"+sites[0].public)
		}
		sites = append(sites, s)
	}
	return sites, rings
}

// safe is when the first standby may sign.
func safe(t *testing.T, d *daemon) time.Time {
	t.Helper()
	var first time.Time
	within(t, 30*time.Second, "standby keys", func() error {
		k, found := d.key("web", "standby")
		if first = k.SafeAt; !found || first.IsZero() {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	return first
}

func wellAgain(t *testing.T, daemons []*daemon) {
	t.Helper()
	for _, d := range daemons {
		within(t, 60*time.Second, "no trouble with the store", func() error {
			status, h, err := d.health("/readyz")
			if err != nil || status != http.StatusOK || strings.Contains(fmt.Sprint(h.Reasons), "store_unavailable") {
				return fmt.Errorf("status %d, %+v, %v", status, h, err)
			}
			return nil
		})
	}
}

func ready(t *testing.T, cluster *vaulttest.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, cluster.Ready(ctx))
}

// striker does something to the cluster when a manifest is being written.
type striker struct {
	cluster *vaulttest.Cluster

	mu     sync.Mutex
	what   string
	left   int  // writes to wait for
	first  bool // it strikes, and then the write goes on
	strike func() error
	result chan error
}

// at arms it for the n-th write from now on: it strikes while that is on its
// way, or just before it arrives.
func (s *striker) at(what string, n int, first bool, strike func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what, s.left, s.first, s.strike, s.result = what, n, first, strike, make(chan error, 1)
}

// watch has it look at what comes through a proxy.
func (s *striker) watch(p *vaulttest.Proxy) {
	p.Decide(func(r *http.Request) vaulttest.Fault {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !writesManifest(r) || s.strike == nil {
			return vaulttest.Pass
		}
		if s.left--; s.left != 0 {
			return vaulttest.Pass
		}
		strike, result, first := s.strike, s.result, s.first
		go func() {
			result <- strike()
			p.Release()
		}()
		if first {
			return vaulttest.Hold
		}
		return vaulttest.Pass
	})
}

// done waits until it has struck.
func (s *striker) done(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.result:
		if err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
		t.Logf("struck at %s: %s", time.Now().Format(time.TimeOnly), s.what)
	case <-time.After(90 * time.Second):
		t.Fatalf("%s: nothing was written", s.what)
	}
}
