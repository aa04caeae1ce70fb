package e2e

import (
	"slices"
	"testing"
	"time"
)

// TestCrashWhileAKeyIsMade: before its half is deposited nothing is stored;
// after it, a half that nobody names and that never becomes a key. In either
// case the next process makes another one, and there is exactly one standby.
func TestCrashWhileAKeyIsMade(t *testing.T) {
	t.Parallel()
	for _, place := range []struct {
		name string
		site func(*testing.T) *mortal
	}{
		{"vault", func(t *testing.T) *mortal { m, _ := onVault(t); return m }},
		{"local", onLocal},
	} {
		for _, at := range []struct {
			name  string
			named int // keys that the manifest names by then
			left  int // halves that nobody names
		}{
			{"create.generated", 0, 0},
			{"create.generated:2", 1, 0},
			{"create.deposited", 0, 1},
			{"create.deposited:2", 1, 1},
		} {
			t.Run(place.name+"/"+at.name, func(t *testing.T) {
				t.Parallel()
				m := place.site(t)
				d := m.runUntil(at.name)
				d.crashes(30 * time.Second)
				named := m.stored().alive()
				if len(named) != at.named {
					t.Errorf("the manifest names %v, want %d keys", named, at.named)
				}
				left := m.nameless()
				if len(left) != at.left {
					t.Errorf("halves without a name: %v, want %d", left, at.left)
				}
				d = m.start("web")
				active, standby := m.settles(d, 20*time.Second, left...)
				if slices.Contains(left, active) || slices.Contains(left, standby) {
					t.Errorf("what a crash left has become a key: active %s, standby %s, left %v", active, standby, left)
				}
				if at.named == 1 && active != named[0] {
					t.Errorf("%s is active, and the first key is %s", active, named[0])
				}
				if got, want := sorted(m.published()), sorted([]string{active, standby}); !slices.Equal(got, want) {
					t.Errorf("published %v, want %v", got, want)
				}
				if err := verifyWith(serveFile(t, m.file), d.mustToken("web").Token, "demo"); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// nameless are the halves in custody that the manifest does not name as keys.
func (m *mortal) nameless() []string {
	m.t.Helper()
	named := m.stored().alive()
	return slices.DeleteFunc(m.halves(), func(kid string) bool { return slices.Contains(named, kid) })
}

// TestOrphanOfACrash: what a crash left nameless is recorded as closed after a
// minute's grace and not before, and destroyed after that, though the process
// crashes between the two. Whoever signs and verifies notices nothing.
func TestOrphanOfACrash(t *testing.T) {
	t.Parallel()
	for name, site := range map[string]func(*testing.T) *mortal{
		"vault": func(t *testing.T) *mortal { m, _ := onVault(t); return m.seldom() },
		"local": func(t *testing.T) *mortal { return onLocal(t).seldom() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := site(t)
			d := m.runUntil("create.deposited:2")
			d.crashes(30 * time.Second)
			left := m.nameless()
			if len(left) != 1 {
				t.Fatalf("halves without a name: %v, want one", left)
			}
			since := time.Now()
			d = m.runUntil("saved.orphan_closed")
			d.canSign(30*time.Second, "web")
			m.follow()
			active, standby := m.settles(d, 20*time.Second, left...)
			d.crashes(100 * time.Second)
			if r := m.stored(); len(r.Orphans) != 1 || r.Orphans[0].Kid != left[0] || r.Orphans[0].Closed.Sub(since) < time.Minute {
				t.Errorf("orphans %+v, want %s after a minute from %s", r.Orphans, left[0], since)
			}
			if m.gone(left[0]) {
				t.Error("destroyed before the closing was stored")
			}
			d = m.start("web")
			within(t, 20*time.Second, "the end of the orphan", func() error { return m.ended(left[0]) })
			if nowActive, nowStandby := m.settles(d, 20*time.Second); nowActive != active || nowStandby != standby {
				t.Errorf("active %s and standby %s, before the sweeping %s and %s", nowActive, nowStandby, active, standby)
			}
		})
	}
}

// seldom is a schedule under which nothing rotates during a test.
func (m *mortal) seldom() *mortal {
	m.edit("@every "+m.period.String(), "@every 1h")
	return m
}
