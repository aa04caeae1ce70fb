package keyring

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// until lives on from wake to wake, with targets that show everything at once,
// and returns what happened when. Renewals of the lease are left out.
func (l *life) until(end time.Time) []string {
	l.t.Helper()
	var log []string
	note := func(events []Event) {
		for _, e := range events {
			if e.Kind != LeaseRenewed {
				log = append(log, fmt.Sprintf("%s %s %s", l.now.Sub(epoch), e.Kind, l.name(e.Kid)))
			}
		}
	}
	for range 20_000 {
		var gone []string
		for rest := 0; rest < 3; { // read back once more when nothing is left to do
			if l.s != nil {
				l.publish()
			}
			out := l.plan(func(in *Input) { in.Gone = gone })
			fresh := l.deposit(out)
			out = l.commit(fresh, func(in *Input) { in.Gone = gone })
			note(out.Events)
			gone = nil
			for _, h := range out.Destroy {
				delete(l.halves, h.Kid)
				gone = append(gone, h.Kid)
			}
			if rest++; out.Next != nil {
				rest = 0
			}
		}
		next := l.out.Wake
		if next.IsZero() || !next.Before(end) {
			l.now = end
			return log
		}
		if !next.After(l.now) {
			l.t.Fatalf("Wake %v is not after %v", next, l.now)
		}
		l.now = next
	}
	l.t.Fatal("too many wakes")
	return nil
}

// name numbers keys in the order in which they were first seen.
func (l *life) name(kid string) string {
	if kid == "" {
		return "-"
	}
	i := slices.Index(l.names, kid)
	if i < 0 {
		i = len(l.names)
		l.names = append(l.names, kid)
	}
	return fmt.Sprint("#", i+1)
}

// TestWholeLife follows the first keys of an issuer by the clock, from wake to
// wake alone: Wake misses nothing.
//
// The lease is 27h at birth and renewed every 3h and a millisecond, so that the
// 55th renewal, at 165h0m0.055s, is the last before the rotation: it says
// 192h0m0.055s. The tail is 1h1m10s, the skew 10s, the lead 15m10s.
func TestWholeLife(t *testing.T) {
	l := newLife(t, bucketConfig())
	log := l.until(at(0).Add(192 * time.Hour))
	want := []string{
		"0s issuer_founded -",
		"0s key_created #1",
		"0s key_confirmed #1", // the first keys need no lead
		"0s key_activated #1",
		"0s key_created #2",
		"0s key_confirmed #2",
		"168h0m0s key_retired #1",
		"168h0m0s key_activated #2",
		"168h0m0s key_created #3",
		"168h0m0s key_confirmed #3",
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Fatalf("until the lease of #1 ends (-want +got):\n%s", diff)
	}
	first := l.s.Key(l.names[0])
	if want := epoch.Add(time.Duration(dur("192h0m0.055s"))); !first.SignUntil.Equal(want) {
		t.Errorf("sign_until of the first key is %v, want %v", first.SignUntil, want)
	}
	if !l.halves[l.names[0]] {
		t.Error("the half of a key that may sign somewhere is destroyed")
	}
	log = l.until(epoch.Add(time.Duration(dur("193h1m10.055s"))))
	want = []string{"192h0m10.056s key_closed #1", "192h0m10.056s key_destroyed #1"}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Fatalf("closing (-want +got):\n%s", diff)
	}
	if l.halves[l.names[0]] {
		t.Error("the half of a closed key is not destroyed")
	}
	in := func(now time.Time) bool { return slices.Contains(mustSet(t, l.s, now, ViewAll).Kids, l.names[0]) }
	if !in(l.now.Add(-time.Nanosecond)) || in(l.now) {
		t.Error("the first key is not withdrawn when its tail has passed")
	}
	log = l.until(epoch.Add(5*week + 26*time.Hour))
	// The fifth is retired at 840h, under the lease of the 279th renewal.
	if last := log[len(log)-1]; last != "865h1m10.279s key_forgotten #1" {
		t.Errorf("with five withdrawn keys the oldest is forgotten; the last that happened is %s", last)
	}
	if l.s.Key(l.names[0]) != nil || l.s.Key(l.names[1]) == nil {
		t.Error("not the oldest is forgotten")
	}
	if len(l.halves) != 2 {
		t.Errorf("%d halves exist, want the active one and the standby's", len(l.halves))
	}
}

func TestFounding(t *testing.T) {
	file := bucketConfig()
	file.Rings = append(file.Rings, Ring{Name: "api", Algorithm: ES256, Custody: "transit", Rotate: "weekly", MaxTokenTTL: dur("10m")})
	l := newLife(t, file)
	out := l.commit()
	wantEvents(t, out, IssuerFounded)
	if s := l.s; s.Generation != 1 || s.Schema != Schema || len(s.Keys) != 0 || !s.Lease.IsZero() || s.Servable() || out.Create != nil {
		t.Fatalf("the first write is not a manifest without keys: %+v", s)
	}
	if l.s.Lineage != "lineage1" || l.s.WriteID != "w1" || !l.s.WrittenAt.Equal(epoch) {
		t.Errorf("lineage %s, write_id %s, written at %v", l.s.Lineage, l.s.WriteID, l.s.WrittenAt)
	}

	out = l.commit()
	if out.Next != nil || len(out.Create) != 2 || out.Create[0].Name != "api" || out.Create[1].Name != "web" {
		t.Fatalf("wants %+v created, and writes %v", out.Create, out.Events)
	}
	both := Input{}
	l.deposit(out)(&both)
	one := l.commit(func(in *Input) { in.Fresh = both.Fresh[:1] })
	if one.Next != nil || len(one.Create) != 1 {
		t.Fatalf("one of two rings was born alone: %v", one.Events)
	}
	wantEvents(t, l.commit(func(in *Input) { in.Fresh = both.Fresh }), KeyCreated, KeyCreated)
	if want := epoch.Add(27 * time.Hour); !l.s.Lease.Equal(want) {
		t.Errorf("lease %v, want %v", l.s.Lease, want)
	}
	for _, ring := range []string{"api", "web"} {
		if k := l.s.Standby(ring); k == nil || !k.Founding || l.s.Active(ring) != nil {
			t.Errorf("ring %s: %+v", ring, k)
		}
	}
	if k := l.s.Standby("api"); k.MaxTTL != dur("10m") || k.Tail != dur("1h1m10s") || k.Custody != "transit" {
		t.Errorf("T %s, tail %s in %s: the tail is the issuer's", k.MaxTTL, k.Tail, k.Custody)
	}

	l.wait(time.Hour) // signing waits for the read-back
	if ev := l.commit(); ev.Next != nil || !slices.Equal(codes(ev), []string{"no_active_key", "no_active_key"}) {
		t.Errorf("nothing was read back: %v, alarms %v", ev.Events, codes(ev))
	}
	l.publish()
	wantEvents(t, l.commit(), KeyConfirmed, KeyConfirmed, KeyActivated, KeyActivated)
	for _, ring := range []string{"api", "web"} {
		if k := l.s.Active(ring); k == nil || !k.Activated.Equal(l.now) {
			t.Errorf("ring %s: %+v", ring, k)
		}
	}
}

// TestFirstKeysAreStoredFirst: even where nothing has to be read back, the
// write that names a key does not activate it.
func TestFirstKeysAreStoredFirst(t *testing.T) {
	file := bucketConfig()
	file.Targets[0].Required = false // Check refuses it; Plan does not count on that
	l := newLife(t, file)
	l.commit()
	wantEvents(t, l.commit(l.deposit(l.plan())), KeyCreated)
	wantEvents(t, l.commit(), KeyActivated)
}

// TestFoundingWithAdoptedKeys: an issuer that takes over a foreign set was
// never unpublished, so consumers may hold that set.
func TestFoundingWithAdoptedKeys(t *testing.T) {
	file := bucketConfig()
	file.Targets[0].AdoptUntil = epoch.Add(week)
	l := newLife(t, file)
	l.commit()
	foreign := JWK{Kty: "RSA", Use: "sig", Alg: RS256, Kid: "2011-04-29", N: rfc7638N, E: "AQAB"}
	out := l.commit(func(in *Input) { in.Foreign = map[string][]JWK{file.Targets[0].Name: {foreign}} })
	wantEvents(t, out, KeyAdopted)
	if diff := cmp.Diff([]Adopted{{JWK: foreign, Until: epoch.Add(week)}}, l.s.Adopted, cmp.AllowUnexported(Adopted{})); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	l.turn()
	l.publish()
	wantEvents(t, l.commit(), KeyConfirmed)
	l.wait(l.s.Lead(l.now) - time.Millisecond)
	if out := l.commit(); out.Next != nil {
		t.Fatalf("before the lead: %v", out.Events)
	}
	l.wait(time.Millisecond)
	wantEvents(t, l.commit(), KeyActivated)
}

// TestAdoptionAfterTheFounding: the keys that the issuer was born with were
// refused at the target, where consumers still find the foreign set.
func TestAdoptionAfterTheFounding(t *testing.T) {
	l := newLife(t, bucketConfig())
	l.commit()
	l.turn()
	l.revise(func(c *Config) { c.Targets[0].AdoptUntil = epoch.Add(week) })
	l.turn()
	l.publish()
	l.turn()
	if k := l.s.Active("web"); k != nil {
		t.Fatalf("%s signs, and nobody can know it", k.JWK.Kid)
	}
	l.wait(l.s.Lead(l.now))
	l.turn()
	if l.s.Active("web") == nil {
		t.Error("it does not sign after its lead")
	}
}

// TestClosingWaits: a key is closed by a write after the one that retired it,
// later than sign_until + E, and its half is destroyed by what is stored.
func TestClosingWaits(t *testing.T) {
	l := settled(t, bucketConfig())
	old := l.s.Active("web").JWK.Kid
	lease := l.s.Lease
	l.now = lease.Add(48 * time.Hour) // the store was away, and the lease is long over
	out := l.commit(func(in *Input) { in.Command = Command{Rotate: "web"} })
	wantEvents(t, out, KeyRetired, KeyActivated, LeaseRenewed)
	if k := l.s.Key(old); !k.SignUntil.Equal(lease) || !k.Closed.IsZero() {
		t.Errorf("retired with sign_until %v, closed %v; the lease that was stored is %v", k.SignUntil, k.Closed, lease)
	}
	out = l.commit()
	wantEvents(t, out, KeyClosed)
	if len(out.Destroy) != 0 {
		t.Error("destroys what no stored manifest shows closed")
	}
	out = l.commit()
	if diff := cmp.Diff([]Half{{Kid: old, Custody: "vaultkv", Handle: "h-" + old}}, out.Destroy); diff != "" || out.Next != nil {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if out = l.commit(); len(out.Destroy) != 1 {
		t.Error("what was not destroyed is not asked for again")
	}
	gone := func(in *Input) { in.Gone = []string{old, "somebody else's"} }
	wantEvents(t, l.commit(gone), KeyDestroyed)
	if out = l.commit(gone); out.Next != nil || len(out.Destroy) != 0 {
		t.Errorf("destroyed, and again: %v, %v", out.Events, out.Destroy)
	}
}

// TestCloseAtTheSecond: not at sign_until + E, but after it.
func TestCloseAtTheSecond(t *testing.T) {
	l := settled(t, bucketConfig())
	old := l.s.Active("web").JWK.Kid
	l.turn(func(in *Input) { in.Command = Command{Rotate: "web"} })
	l.now = l.s.Key(old).SignUntil.Add(10 * time.Second)
	if events := l.turn(); slices.Contains(events, KeyClosed) {
		t.Error("closed while the slowest clock may still sign")
	}
	l.wait(time.Millisecond)
	if events := l.turn(); !slices.Contains(events, KeyClosed) {
		t.Errorf("not closed: %v", events)
	}
}

// TestGoneOfALivingKey: only what is closed can be recorded as destroyed.
func TestGoneOfALivingKey(t *testing.T) {
	l := settled(t, bucketConfig())
	var all []string
	for i := range l.s.Keys {
		all = append(all, l.s.Keys[i].JWK.Kid)
	}
	if out := l.plan(func(in *Input) { in.Gone = all }); out.Next != nil && slices.Contains(kinds(out), KeyDestroyed) {
		t.Errorf("recorded as destroyed: %v", out.Events)
	}
}

func TestLeaseIsRenewedInTime(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn()
	lease := l.s.Lease
	l.now = lease.Add(-24 * time.Hour)
	if out := l.commit(); out.Next != nil {
		t.Fatalf("with B left: %v", out.Events)
	}
	l.wait(time.Millisecond)
	wantEvents(t, l.commit(), LeaseRenewed)
	if want := l.now.Add(27 * time.Hour); !l.s.Lease.Equal(want) {
		t.Errorf("lease %v, want %v", l.s.Lease, want)
	}
	l.now = l.now.Add(-time.Hour) // a clock that is behind shortens nothing
	if out := l.commit(); out.Next != nil {
		t.Errorf("wrote %v", out.Events)
	}
}
