package e2e

import (
	"slices"
	"testing"
	"time"
)

// walk names the crash points of one life, in the order in which it comes to
// them: the founding, and from saved.lease_renewed on a rotation and the end of
// the key that it retires.
var walk = []string{
	"saved.issuer_founded", "create.generated", "create.deposited", "save.before", "saved.key_created",
	"accept.marked", "publish.listed", "publish.wrote", "saved.key_confirmed", "saved.key_activated",
	"saved.lease_renewed", "saved.key_activated", "create.generated", "create.deposited", "saved.key_created",
	"publish.wrote", "saved.key_closed", "destroy.destroyed", "saved.key_destroyed",
}

// TestCrashEverywhere: one life whose every process dies at the next crash
// point. What is published is good all the while; in the end the manifest is
// one chain, and custody holds what it names and what the crashes left.
func TestCrashEverywhere(t *testing.T) {
	t.Parallel()
	t.Run("vault", func(t *testing.T) {
		t.Parallel()
		m, root := onVault(t)
		m.crashEverywhere(walk)
		oneChain(t, root.vaultSite)
	})
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		// There a half ends in one step.
		points := slices.DeleteFunc(slices.Clone(walk), func(at string) bool { return at == "destroy.destroyed" })
		onLocal(t).crashEverywhere(points)
	})
}

func (m *mortal) crashEverywhere(points []string) {
	m.t.Helper()
	var tr *traffic
	left := map[string]bool{}
	for n, at := range points {
		d := m.runUntil(at)
		d.crashes(60 * time.Second)
		for _, kid := range m.nameless() {
			left[kid] = true
		}
		if n == slices.Index(points, "publish.wrote") { // from here on there is a set
			tr = m.follow()
		}
	}
	d := m.start("web")
	var orphans []string
	for kid := range left {
		if !m.gone(kid) { // or it was destroyed, and that was not yet written down
			orphans = append(orphans, kid)
		}
	}
	active, standby := m.settles(d, 30*time.Second, orphans...)
	if left[active] || left[standby] {
		m.t.Errorf("what a crash left has become a key: active %s, standby %s, left %v", active, standby, orphans)
	}
	if signed := tr.signers("web"); len(signed) < 2 {
		m.t.Errorf("no rotation: %v signed", signed)
	}
	m.t.Logf("%d crashes, %d generations, orphans %v", len(points), m.stored().Generation, orphans)
	m.noLitter()
}
