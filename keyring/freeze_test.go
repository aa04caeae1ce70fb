package keyring

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// restored is a store that was put back to an older copy, and what a replica
// knows that has seen the newest.
func restored(t testing.TB) (known, stored *Snapshot, halves map[string][]string, now time.Time) {
	l := rotated(t, true)
	stored = l.s
	l.s = l.s.Clone()
	l.commit(asked("web"))
	l.turn()
	l.commit(order(Command{Revoke: []string{l.retired().JWK.Kid}}))
	// The restored store has the halves of then.
	for i := range stored.Keys {
		if k := &stored.Keys[i]; k.Closed.IsZero() {
			halves = map[string][]string{"vaultkv": append(halves["vaultkv"], k.JWK.Kid)}
		}
	}
	return l.s, stored, halves, l.now
}

func TestFreeze(t *testing.T) {
	known, stored, _, now := restored(t)
	known = known.Clone()
	known.StoreVersion = 77
	mark := MarkOf(known)
	f := Freeze(stored, known, mark, "main", "restored", "w", now)
	if f.Frozen == nil || f.Frozen.Generation != known.Generation || f.Frozen.StoreVersion != 77 || f.Generation != stored.Generation+1 || f.WriteID != "w" {
		t.Fatalf("%+v", f.Frozen)
	}
	if diff := cmp.Diff(kids(stored), kids(f)); diff != "" {
		t.Errorf("other keys than the stored ones: %s", diff)
	}
	if out := Plan(f, Input{Now: now}); !out.Halted || out.Next != nil {
		t.Error("somebody plans on it")
	}
	if again := Freeze(f, known, mark, "main", "restored", "x", now); again != nil {
		t.Error("it is frozen again by the same mark")
	}
	if lower := Freeze(f, stored, MarkOf(stored), "main", "restored", "x", now); lower != nil {
		t.Error("it is frozen again by a lower mark")
	}
	higher := mark
	higher.Generation++
	if next := Freeze(f, known, higher, "main", "restored", "x", now); next == nil || next.Frozen.Generation != higher.Generation {
		t.Error("a higher mark is not written")
	}
	// Nothing readable is there.
	if f := Freeze(nil, known, mark, "main", "gone", "w", now); f.Frozen == nil || f.Generation != known.Generation+1 || len(f.Keys) != len(known.Keys) {
		t.Errorf("%+v", f)
	}
	f = Freeze(nil, nil, Mark{}, "main", "halves without a manifest", "w", now)
	if doc, err := Encode(f); err != nil {
		t.Error(err)
	} else if back, err := Decode(doc); err != nil || back.Frozen == nil || back.Config.Name != "main" {
		t.Errorf("a manifest without anything: %v", err)
	}
	if next := Freeze(f, known, mark, "main", "restored", "x", now); next == nil || next.Frozen.Lineage != known.Lineage {
		t.Error("a mark is not written over none")
	}
}

func kids(s *Snapshot) []string {
	var out []string
	for i := range s.Keys {
		out = append(out, s.Keys[i].JWK.Kid)
	}
	return out
}

func TestAccept(t *testing.T) {
	known, stored, halves, now := restored(t)
	frozen := Freeze(stored, known, MarkOf(known), "main", "restored", "w", now)
	a, err := Accept(known, frozen, halves, false, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	n := a.Next
	if n.Generation <= known.Generation || n.Generation <= frozen.Generation || n.Frozen != nil || n.Lineage != known.Lineage || n.WriteID != "a" {
		t.Errorf("generation %d after %d and %d, frozen %v", n.Generation, known.Generation, frozen.Generation, n.Frozen)
	}
	// The standby of the newest manifest was generated after the copy: it is gone.
	gone := known.Standby("web").JWK.Kid
	if !slices.Equal(a.Dropped, []string{gone}) || n.Key(gone).Retired.IsZero() {
		t.Errorf("dropped %v, want %s", a.Dropped, gone)
	}
	for i := range known.Keys {
		k := &known.Keys[i]
		if got := n.Key(k.JWK.Kid); !k.Revoked.IsZero() && (got.Revoked.IsZero() || !got.Destroyed.IsZero()) {
			t.Errorf("revoked key %s: %+v", k.JWK.Kid, got)
		}
	}
	if known.Active("web").JWK.Kid != n.Active("web").JWK.Kid || a.Retired != nil {
		t.Errorf("retired %v", a.Retired)
	}
	if _, err := Encode(n); err != nil {
		t.Error(err)
	}
}

// TestAcceptDestroysWhatCameBack: a destroyed half, and one that nothing names.
func TestAcceptDestroysWhatCameBack(t *testing.T) {
	known, _, halves, now := restored(t)
	i := slices.IndexFunc(known.Keys, func(k Key) bool { return !k.Revoked.IsZero() })
	known = known.Clone()
	known.Keys[i].Destroyed = now
	back := known.Keys[i].JWK.Kid
	halves["vaultkv"] = append(halves["vaultkv"], back, "forgotten")
	a, err := Accept(known, nil, halves, false, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{back, "forgotten"}
	slices.Sort(want)
	if !slices.Equal(a.Destroyed, want) {
		t.Errorf("destroyed %v, want %v", a.Destroyed, want)
	}
	var doomed []string
	for _, h := range Plan(a.Next, Input{Now: now, File: a.Next.Config, NextRun: func(_ string, after time.Time) time.Time { return after.Add(week) }}).Destroy {
		doomed = append(doomed, h.Kid)
	}
	for _, kid := range want {
		if !slices.Contains(doomed, kid) {
			t.Errorf("%s is not destroyed: %v", kid, doomed)
		}
	}
}

// TestAcceptRetiresAnActiveKeyWithoutItsHalf: replicas that have it in memory
// may sign with it until the lease ends.
func TestAcceptRetiresAnActiveKeyWithoutItsHalf(t *testing.T) {
	known, _, halves, now := restored(t)
	kid := known.Active("web").JWK.Kid
	halves["vaultkv"] = slices.DeleteFunc(halves["vaultkv"], func(k string) bool { return k == kid })
	a, err := Accept(known, nil, halves, false, "a", now)
	if err != nil {
		t.Fatal(err)
	}
	if k := a.Next.Key(kid); !slices.Equal(a.Retired, []string{kid}) || !k.SignUntil.Equal(known.Lease) || k.State(now) != Retired {
		t.Errorf("retired %v: %+v", a.Retired, k)
	}
}

func TestAcceptIsRefused(t *testing.T) {
	known, stored, halves, now := restored(t)
	frozen := Freeze(stored, known, MarkOf(known), "main", "restored", "w", now)
	other := known.Clone()
	other.Lineage = "another"
	newer := known.Clone()
	newer.Generation++
	schema := stored.Clone()
	schema.Schema++
	for _, tc := range []struct {
		name          string
		known, stored *Snapshot
		want          string
		force         bool // lets it through
	}{
		{"no mark", nil, frozen, "no mark", false},
		{"a lower mark", stored, frozen, "run keyturn accept there", true},
		{"a mark of another lineage", other, frozen, "a wrong state_dir or a wrong store", true},
		{"nothing is wrong", known, known, ErrNotFrozen.Error(), false},
		{"the stored one is newer", known, newer, ErrNotFrozen.Error(), false},
		{"a newer schema", known, schema, ErrSchema.Error(), false},
	} {
		_, err := Accept(tc.known, tc.stored, halves, false, "a", now)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
		var low *LowerMarkError
		if tc.force && tc.want != ErrNotFrozen.Error() && (!errors.As(err, &low) || low.Highest.Generation < frozen.Generation) {
			t.Errorf("%s: it does not say who has seen more: %v", tc.name, err)
		}
		a, err := Accept(tc.known, tc.stored, halves, true, "a", now)
		if (err == nil) != tc.force {
			t.Errorf("%s, by force: %v", tc.name, err)
		}
		if err == nil && (a.Next.Generation <= frozen.Frozen.Generation || a.Next.Generation <= tc.stored.Generation) {
			t.Errorf("%s, by force: generation %d", tc.name, a.Next.Generation)
		}
	}
}

func TestServe(t *testing.T) {
	l := rotated(t, true)
	until, now := l.s.Lease, l.now
	second := time.Second
	for _, tc := range []struct {
		name      string
		now, late time.Time
		want      bool
	}{
		{"within the lease", now, now, true},
		{"at its end", until, until, false},
		{"by the wall clock", until.Add(second), now, false},
		{"by the boot clock", now, until, false},
		{"a clock that is days behind", now.Add(-72 * time.Hour), now.Add(-72 * time.Hour), false},
	} {
		if got := l.s.MaySign(until, tc.now, tc.late); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	all := func(string) bool { return true }
	active, old := l.s.Active("web").JWK.Kid, l.retired().JWK.Kid
	if got := l.s.Signers("web", now, all); len(got) != 1 || got[0].JWK.Kid != active {
		t.Errorf("signers %v", got)
	}
	if got := l.s.Signers("web", now, func(kid string) bool { return kid != active }); len(got) != 1 || got[0].JWK.Kid != old {
		t.Errorf("without the active half: %v", got)
	}
	if got := l.s.Signers("api", now, all); got != nil {
		t.Errorf("of an unknown ring: %v", got)
	}
	h := l.s.Hold(now)
	if h.Expired(h.ServeUntil.Add(-second)) || !h.Expired(h.ServeUntil) {
		t.Error("a set is served until serve_until, not longer")
	}
	older, other := l.s.Clone(), l.s.Clone()
	older.Generation--
	other.Lineage = "another"
	if !h.Yields(l.s) || h.Yields(older) || h.Yields(other) || !(Held{}).Yields(older) {
		t.Error("a set replaces only one of its lineage that is not ahead of it")
	}
}
