package keyring

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestOrphans are recorded as closed before they are destroyed.
func TestOrphans(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn()
	named := l.s.Active("web").JWK.Kid
	fresh := Fresh{Ring: "web", JWK: testJWK(t, EdDSA, 0, 5000), Custody: "vaultkv"}
	out := l.commit(func(in *Input) {
		in.Orphans = []string{"lost", named, fresh.JWK.Kid, "lost"}
		in.Fresh = []Fresh{fresh}
	})
	wantEvents(t, out, OrphanClosed)
	if len(out.Destroy) != 0 {
		t.Fatalf("destroys what no stored manifest shows closed: %v", out.Destroy)
	}
	if diff := cmp.Diff([]Orphan{{Kid: "lost", Closed: l.now}}, l.s.Orphans, cmp.AllowUnexported(Orphan{})); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	out = l.commit(func(in *Input) { in.Orphans = []string{"lost"} })
	wantNothing(t, out)
	if diff := cmp.Diff([]Half{{Kid: "lost", Handle: "lost"}}, out.Destroy); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	wantEvents(t, l.commit(func(in *Input) { in.Gone = []string{"lost"} }), OrphanDestroyed)
	if out = l.commit(); len(l.s.Orphans) != 0 || len(out.Destroy) != 0 {
		t.Errorf("orphans %v, destroys %v", l.s.Orphans, out.Destroy)
	}
}

// TestFrozen: nobody plans on a frozen manifest.
func TestFrozen(t *testing.T) {
	l := settled(t, bucketConfig())
	l.s = l.s.Clone()
	l.s.Frozen = &Frozen{At: at(7), Reason: "restored from an older copy", Lineage: l.s.Lineage, Generation: 99}
	l.wait(2 * week)
	l.publish()
	l.revise(func(c *Config) { c.MaxKeys = 50 })
	out := l.plan(asked("web"), func(in *Input) { in.Orphans, in.Gone = []string{"lost"}, []string{"lost"} })
	want := Outcome{Halted: true, Alarms: []Alarm{{Code: "frozen", Issuer: "main", Since: at(7), Message: "the manifest is frozen: restored from an older copy"}}}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestNewerSchemaIsNotPlannedOn: I12.
func TestNewerSchemaIsNotPlannedOn(t *testing.T) {
	l := settled(t, bucketConfig())
	l.s = l.s.Clone()
	l.s.Schema = Schema + 1
	l.wait(2 * week)
	l.publish()
	out := l.plan(asked("web"))
	if out.Next != nil || out.Create != nil || out.Destroy != nil || !slices.Equal(codes(out), []string{"manifest_schema"}) {
		t.Fatalf("%+v", out)
	}
	if m := out.Alarms[0].Message; !strings.Contains(m, "has schema 2 and this keyturn writes 1") || !strings.Contains(m, "run a newer keyturn") {
		t.Errorf("says %q", m)
	}
}

// TestConflict: two replicas plan on one snapshot, one write counts, and the
// loser, planning again on what is stored, does not do the same once more.
func TestConflict(t *testing.T) {
	due := func(l *life) { l.now = l.s.Active("web").Activated.Add(week) }
	for _, tc := range []struct {
		name   string
		before func(*life)
		with   func(*Input)
		kind   EventKind
	}{
		{"a due rotation", due, nil, KeyActivated},
		{"an operator's", func(*life) {}, asked("web"), KeyActivated},
		{"a new standby", func(l *life) { l.commit(asked("web")) }, nil, KeyCreated},
		{"a revision", func(l *life) { l.revise(func(c *Config) { c.MaxKeys = 90 }) }, nil, ConfigAdopted},
		{"a lease", func(l *life) { l.now = l.s.Lease.Add(-time.Hour) }, nil, LeaseRenewed},
		{"a closing", func(l *life) { l.turn(asked("web")); l.now = l.s.Lease.Add(time.Hour) }, nil, KeyClosed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := settled(t, bucketConfig())
			l.turn()
			tc.before(l)
			if tc.with == nil {
				tc.with = func(*Input) {}
			}
			winner, loser := l.deposit(l.plan(tc.with)), l.deposit(l.plan(tc.with))
			lost := l.plan(tc.with, loser)
			won := l.commit(tc.with, winner)
			if !slices.Contains(kinds(won), tc.kind) || !slices.Contains(kinds(lost), tc.kind) {
				t.Fatalf("won %v, lost %v, want %s in both", won.Events, lost.Events, tc.kind)
			}
			if won.Next.WriteID == lost.Next.WriteID {
				t.Error("both writes have one write_id")
			}
			again := l.commit(tc.with, loser)
			if slices.Contains(kinds(again), tc.kind) && tc.kind != KeyCreated {
				t.Errorf("the loser did it once more: %v", again.Events)
			}
			if n := len(l.s.standbys("web")); n > 1 {
				t.Errorf("%d standbys", n)
			}
		})
	}
}

// TestStoreAway: signing stops with the lease; with the store back there is
// one rotation, the lease is renewed, and what is over is closed.
func TestStoreAway(t *testing.T) {
	l := settled(t, bucketConfig())
	old := l.s.Active("web").JWK.Kid
	l.wait(week + 48*time.Hour)
	events := l.turn()
	if count(events, KeyActivated) != 1 || count(events, LeaseRenewed) != 1 || count(events, KeyClosed) != 1 || count(events, KeyDestroyed) != 1 {
		t.Errorf("events %v", events)
	}
	if k := l.s.Key(old); k.State(l.now) != Withdrawn || l.halves[old] {
		t.Errorf("the old key is %s", k.State(l.now))
	}
}

func TestWakeOfNothing(t *testing.T) {
	l := newLife(t, bucketConfig())
	l.commit()
	if out := l.plan(); !out.Wake.IsZero() {
		t.Errorf("an issuer without keys wakes at %v", out.Wake)
	}
}

func TestNotSafeYetError(t *testing.T) {
	for _, tc := range []struct {
		err  NotSafeYetError
		want string
	}{
		{NotSafeYetError{Ring: "web"}, `ring "web" has no standby key yet`},
		{NotSafeYetError{Ring: "web", SafeAt: at(90)}, `ring "web": consumers may not know the standby key before 2026-01-01T00:01:30Z`},
		{NotSafeYetError{Ring: "web", Waiting: []string{"a", "b"}}, `ring "web": the standby key is not yet published at "a", "b"`},
	} {
		if got := tc.err.Error(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}
