package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCrashAfterSomeTargets: the process dies when one of its targets holds
// the new key and another one cannot be written. The next process does not take
// the key for published until that one was read back too, and the lead counts
// from then.
func TestCrashAfterSomeTargets(t *testing.T) {
	t.Parallel()
	m, _ := onVault(t)
	second := m.path("second.json")
	m.edit("      - {name: endpoint, http: true}", "      - {name: endpoint, http: true}\n      - {name: second, file: second.json}")
	d := m.start("web")
	old, next := m.settles(d, 20*time.Second)
	m.follow(second)
	d.stop()
	d = m.runUntil("publish.wrote") // what is there is right, so that the next new set is meant
	d.canSign(30*time.Second, "web")
	// Its lock keeps a file from being written. Not for long: it is taken away
	// where it cannot be kept current.
	time.Sleep(time.Until(nextRotation(t, d).Add(-2 * time.Second)))
	unlock := holdLock(t, second+".keyturn.lock")
	before := must1(os.ReadFile(second))(t)
	d.crashes(30 * time.Second)
	fresh := slices.DeleteFunc(m.stored().alive(), func(kid string) bool { return kid == old || kid == next })
	if len(fresh) != 1 || !slices.Contains(m.published(), fresh[0]) {
		t.Fatalf("new keys %v, published %v", fresh, m.published())
	}

	d = m.start("web")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if k, found := d.key("web", "standby"); !found || k.Kid != fresh[0] || !slices.Contains(k.WaitingFor, "second") || !k.SafeAt.IsZero() {
			t.Fatalf("standby %+v, and the second target does not show it", k)
		}
	}
	if now := must1(os.ReadFile(second))(t); !bytes.Equal(before, now) {
		t.Errorf("the second target was written under a lock: %s", now)
	}
	released := time.Now()
	unlock()
	safe := d.publishedAgain(fresh[0])
	if lead := 16250 * time.Millisecond; safe.Before(released.Add(lead)) {
		t.Errorf("the key may sign from %s on, and the second target was locked until %s: the lead is %s", safe, released, lead)
	}
	if kids := must1(kidsIn(must1(os.ReadFile(second))(t)))(t); !slices.Contains(kids, fresh[0]) {
		t.Errorf("read back from the second target, which holds %v", kids)
	}
	within(t, 60*time.Second, "its turn", func() error {
		if tok := d.mustToken("web"); tok.Kid != fresh[0] {
			return fmt.Errorf("%s signs", tok.Kid)
		}
		return nil
	})
	if at := m.stored().find(fresh[0]).Activated; at.Before(safe) {
		t.Errorf("activated at %s, safe from %s on", at, safe)
	}
}

// publishedAgain waits until the standby is read back everywhere, and returns
// when it may sign.
func (d *daemon) publishedAgain(kid string) time.Time {
	d.t.Helper()
	var safe time.Time
	within(d.t, 15*time.Second, "the read-back everywhere", func() error {
		k, _ := d.key("web", "standby")
		if k.Kid != kid || k.SafeAt.IsZero() || len(k.WaitingFor) > 0 {
			return fmt.Errorf("standby %+v", k)
		}
		safe = k.SafeAt
		return nil
	})
	return safe
}

// holdLock takes a lock as another process would, until it is told, or the
// test ends.
func holdLock(t *testing.T, path string) func() {
	t.Helper()
	f := must1(os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600))(t)
	t.Cleanup(func() { _ = f.Close() })
	within(t, 5*time.Second, "the lock of the file", func() error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	return func() { must(t, f.Close()) }
}

// TestCrashWithinAPublication: the process dies between the side file and the
// file. The old file is whole and known for what it is, nothing is left beside
// it, and the next process takes the change for nobody's.
func TestCrashWithinAPublication(t *testing.T) {
	t.Parallel()
	m := onLocal(t)
	d := m.start("web")
	active, standby := m.settles(d, 20*time.Second)
	m.follow()
	d.stop()
	d = m.runUntil("publish.listed")
	d.canSign(30*time.Second, "web")
	before, names := must1(os.ReadFile(m.file))(t), list(t, m.path("www"))
	d.crashes(30 * time.Second)
	if now := must1(os.ReadFile(m.file))(t); !bytes.Equal(before, now) {
		t.Errorf("the file is not as it was: %s", now)
	}
	var side struct{ Sets []struct{ Generation uint64 } }
	must(t, json.Unmarshal(must1(os.ReadFile(m.file+".keyturn"))(t), &side))
	if len(side.Sets) != 2 || side.Sets[0].Generation >= side.Sets[1].Generation {
		t.Errorf("the side file lists %+v, want the set that is there and the new one", side.Sets)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return strings.HasSuffix(name, ".tmp") }) // of a write under way
	if now := list(t, m.path("www")); !slices.Equal(names, now) {
		t.Errorf("beside the file: %v, before: %v", now, names)
	}

	d = m.start("web")
	nowActive, nowStandby := m.settles(d, 20*time.Second)
	if nowActive != standby || nowStandby == active {
		t.Errorf("active %s and standby %s, before the rotation %s and %s", nowActive, nowStandby, active, standby)
	}
	if kids := m.published(); !slices.Contains(kids, nowStandby) || !slices.Contains(kids, active) {
		t.Errorf("published: %v, want %s and %s", kids, nowStandby, active)
	}
	if n := drifts(t, d); n != 0 {
		t.Errorf("%d changes by others were counted, and nobody changed anything", n)
	}
	m.noLitter()
}
