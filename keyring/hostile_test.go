package keyring

import (
	"slices"
	"testing"
	"time"
)

// What a reviewer tried: ways in which a key that is not trusted any more, or not
// known yet, could sign or be published all the same.

// fork is a store that was restored and written on by a replica without a mark,
// beside the manifest of one that has seen more.
func fork(l *life) (known *Snapshot) {
	known = l.s.Clone()
	known.Generation += 10
	known.WriteID = "known"
	return known
}

// TestAcceptKeepsTheForksRevocation: what was revoked stays so, whichever
// manifest holds.
func TestAcceptKeepsTheForksRevocation(t *testing.T) {
	l := rotated(t, true)
	known := fork(l)
	kid := l.s.Active("web").JWK.Kid
	l.commit(order(Command{Revoke: []string{kid}}))
	frozen := Freeze(l.s, known, MarkOf(known), "main", "restored", "w", l.now)
	halves := map[string][]string{"vaultkv": {known.Standby("web").JWK.Kid}}
	a, err := Accept(known, frozen, halves, false, "a", l.now)
	if err != nil {
		t.Fatal(err)
	}
	if k := a.Next.Key(kid); k.InSet(l.now) || k.State(l.now) != Revoked || k.Closed.IsZero() {
		t.Errorf("it is %s, in the set %v", k.State(l.now), k.InSet(l.now))
	}
}

// TestAcceptKeepsTheForksLease: replicas may have signed under it.
func TestAcceptKeepsTheForksLease(t *testing.T) {
	l := rotated(t, true)
	kid := l.s.Active("web").JWK.Kid
	other := &life{t: t, now: l.now, file: l.file, seen: l.seen, serial: 1000, halves: l.halves, s: l.s.Clone()}
	other.commit(asked("web")) // what was seen: the key is retired with the lease of then
	known := fork(other)
	l.wait(20 * time.Hour)
	l.commit() // the fork: it goes on, and its lease is renewed
	if !l.s.Lease.After(known.Key(kid).SignUntil) {
		t.Fatal("the lease was not renewed")
	}
	frozen := Freeze(l.s, known, MarkOf(known), "main", "restored", "w", l.now)
	a, err := Accept(known, frozen, map[string][]string{"vaultkv": {kid, known.Active("web").JWK.Kid}}, false, "a", l.now)
	if err != nil {
		t.Fatal(err)
	}
	if k := a.Next.Key(kid); k.SignUntil.Before(l.s.Lease) || a.Next.Lease.Before(l.s.Lease) {
		t.Errorf("replicas may sign until %v, the accepted manifest says %v", l.s.Lease, k.SignUntil)
	}
}

// TestForcedKeyIsNotKnown: a key that was forced and rolled back is no
// successor, and no goal of a rollback, until its lead has passed.
func TestForcedKeyIsNotKnown(t *testing.T) {
	l := rotated(t, false)
	good := l.s.Active("web").JWK.Kid
	l.commit(order(Command{Rotate: "web", Force: true}))
	forced := l.s.Active("web").JWK.Kid
	safe := l.s.SafeAt(l.s.Key(forced), l.now)
	l.wait(5 * time.Minute)
	l.commit(order(Command{Rotate: "web", To: good}))
	if e := refusal(t, l.plan(order(Command{Rotate: "web", To: forced}))); !e.SafeAt.Equal(safe) {
		t.Errorf("safe at %v, want %v", e.SafeAt, safe)
	}
	l.commit(order(Command{Revoke: []string{good}}))
	if k := l.s.Active("web"); k != nil && k.JWK.Kid == forced {
		t.Error("it signs without force, before it is safe")
	}
	l.now = safe
	if out := l.plan(order(Command{Rotate: "web", To: forced})); out.Refused != nil {
		t.Errorf("at its time: %v", out.Refused)
	}
}

// TestFoundingKeysKeepTheirLead, also where adopt_until is taken out again as
// soon as the foreign set was taken over.
func TestFoundingKeysKeepTheirLead(t *testing.T) {
	l := newLife(t, bucketConfig())
	l.turn() // founded; the target is refused, since a foreign set stands there
	l.wait(time.Hour)
	l.revise(func(c *Config) { c.Targets[0].AdoptUntil = l.now.Add(4 * week) })
	foreign := testJWK(t, EdDSA, 0, 999)
	foreign.Kid = "theirs"
	l.turn(func(in *Input) { in.Foreign = map[string][]JWK{"bucket": {foreign}} })
	l.publish()
	l.turn()
	l.wait(time.Minute)
	l.revise(func(c *Config) { c.Targets[0].AdoptUntil = time.Time{} })
	l.publish()
	l.turn()
	if l.s.Active("web") != nil {
		t.Error("it signs a minute after its first publication")
	}
}

// TestRevokedIsNeverForgotten: a stale copy of a set, on a new host with
// adopt_until, brings back neither a foreign key nor one of our own.
func TestRevokedIsNeverForgotten(t *testing.T) {
	file := bucketConfig()
	file.Targets[0].AdoptUntil = epoch.Add(4 * week)
	l := newLife(t, file)
	l.commit()
	foreign := testJWK(t, EdDSA, 0, 999)
	foreign.Kid = "theirs"
	l.turn(func(in *Input) { in.Foreign = map[string][]JWK{"bucket": {foreign}} })
	l.publish()
	l.turn()
	l.wait(l.s.Lead(l.now))
	l.turn()
	own := l.s.Active("web").JWK
	l.turn(order(Command{Revoke: []string{foreign.Kid, own.Kid}}))
	for range 12 {
		for range 3 {
			l.publish()
			l.turn()
			l.wait(l.s.Lead(l.now))
		}
		l.wait(week)
	}
	l.revise(func(c *Config) {
		c.Targets = append(c.Targets, Target{Name: "host", Kind: TargetFile, AdoptUntil: l.now.Add(4 * week)})
	})
	l.turn(func(in *Input) { in.Foreign = map[string][]JWK{"host": {foreign, own}} })
	set := mustSet(t, l.s, l.now, ViewAll)
	for _, kid := range []string{foreign.Kid, own.Kid} {
		if slices.Contains(set.Kids, kid) {
			t.Errorf("%s is back", kid)
		}
	}
}

// TestGenerationsHaveAnEnd: one that is too large would be followed by 0.
func TestGenerationsHaveAnEnd(t *testing.T) {
	s := rotated(t, true).s.Clone()
	s.Generation = 1<<64 - 1
	doc, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(doc); err == nil {
		t.Error("it is read")
	}
}

// TestForcedRollbackSaysWhatItBreaks: going back by force to a key that nobody
// can know yet is as bad as taking an unproven standby.
func TestForcedRollbackSaysWhatItBreaks(t *testing.T) {
	l := rotated(t, false)
	good := l.s.Active("web").JWK.Kid
	l.commit(order(Command{Rotate: "web", Force: true}))
	forced := l.s.Active("web").JWK.Kid
	l.commit(order(Command{Rotate: "web", To: good}))
	before := l.s
	out := l.commit(order(Command{Rotate: "web", To: forced, Force: true}))
	e := Exposed(before, l.s, l.now)
	if !contains(kinds(out), KeyForced) || len(e.Successors) != 1 || e.Successors[0].Kind != UnprovenStandby || e.Successors[0].SafeAt.IsZero() {
		t.Errorf("%v: %+v", out.Events, e.Successors)
	}
}
