package keyring

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func order(c Command) func(*Input) { return func(in *Input) { in.Command = c } }

// rotated is a life with an active, a retired and a standby key; the standby
// is proven if it is told so.
func rotated(t testing.TB, proven bool) *life {
	l := settled(t, bucketConfig())
	l.turn(asked("web"))
	l.publish()
	l.turn()
	if proven {
		l.wait(l.s.Lead(l.now))
	}
	return l
}

func (l *life) retired() *Key {
	for i := range l.s.Keys {
		if l.s.Keys[i].State(l.now) == Retired {
			return &l.s.Keys[i]
		}
	}
	l.t.Fatal("no key is retired")
	return nil
}

func TestRollback(t *testing.T) {
	l := rotated(t, false)
	old, now := l.retired().JWK.Kid, l.s.Active("web").JWK.Kid
	out := l.commit(order(Command{Rotate: "web", To: old}))
	wantEvents(t, out, KeyRetired, KeyReinstated)
	if l.s.Active("web").JWK.Kid != old || !l.s.Key(now).SignUntil.Equal(l.past[len(l.past)-2].Lease) {
		t.Errorf("%s signs, the other until %v", l.s.Active("web").JWK.Kid, l.s.Key(now).SignUntil)
	}
	if got := l.s.SignUntil(l.s.Key(old)); !got.Equal(l.s.Lease) {
		t.Errorf("it signs until %v, the lease is %v", got, l.s.Lease)
	}
	wantNothing(t, l.commit(order(Command{Rotate: "web", To: old}))) // again: it is so already
	l.wait(week)
	l.publish()
	l.turn()
	if l.s.Active("web").JWK.Kid == old {
		t.Error("the schedule does not count from the rollback")
	}
}

// TestRollbackRaisesTheTail in the same write: the key retired under a shorter one.
func TestRollbackRaisesTheTail(t *testing.T) {
	l := rotated(t, false)
	old := l.retired().JWK.Kid
	l.revise(func(c *Config) { c.Rings[0].MaxTokenTTL = dur("2h") })
	l.commit()
	if k := l.s.Key(old); k.MaxTTL != dur("1h") {
		t.Fatalf("a retired key has T %v", k.MaxTTL)
	}
	l.commit(order(Command{Rotate: "web", To: old}))
	if k := l.s.Key(old); k.MaxTTL != dur("2h") || time.Duration(k.Tail) != l.s.Config.Timing().Tail {
		t.Errorf("T %v, tail %v", k.MaxTTL, k.Tail)
	}
}

func TestRollbackIsRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(l *life) Command
		want error
		says string
	}{
		{"an unknown ring", func(l *life) Command { return Command{Rotate: "api", To: l.retired().JWK.Kid} }, ErrUnknownRing, "api"},
		{"an unknown key", func(*life) Command { return Command{Rotate: "web", To: "nobody"} }, ErrUnknownKey, "nobody"},
		{"a closed key", func(l *life) Command {
			kid := l.retired().JWK.Kid
			l.now = l.s.Key(kid).SignUntil.Add(time.Minute)
			l.turn()
			return Command{Rotate: "web", To: kid}
		}, ErrClosed, "until sign_until and clock_skew have passed"},
		{"a revoked key", func(l *life) Command {
			kid := l.retired().JWK.Kid
			l.commit(order(Command{Revoke: []string{kid}}))
			return Command{Rotate: "web", To: kid}
		}, ErrClosed, "was revoked"},
		{"the standby before its time", func(l *life) Command { return Command{Rotate: "web", To: l.s.Standby("web").JWK.Kid} }, nil, "may not know the standby key before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := rotated(t, false)
			c := tc.do(l)
			out := l.commit(order(c))
			if out.Refused == nil || (tc.want != nil && !errors.Is(out.Refused, tc.want)) || !strings.Contains(out.Refused.Error(), tc.says) {
				t.Errorf("refused with %v", out.Refused)
			}
			if out.Next != nil && l.s.Active("web").JWK.Kid == c.To {
				t.Error("and done all the same")
			}
		})
	}
	l := rotated(t, false)
	kid := l.retired().JWK.Kid
	out := l.plan(order(Command{Rotate: "web", To: kid}), func(in *Input) { in.Damaged = []string{kid} })
	if !errors.Is(out.Refused, ErrNoKey) {
		t.Errorf("a key without its half: %v", out.Refused)
	}
}

func TestForce(t *testing.T) {
	l := rotated(t, false)
	standby := l.s.Standby("web").JWK.Kid
	if e := refusal(t, l.plan(asked("web"))); e.SafeAt.IsZero() {
		t.Error("it does not say when it is safe")
	}
	before := l.s
	out := l.commit(order(Command{Rotate: "web", Force: true}))
	wantEvents(t, out, KeyRetired, KeyForced, KeyActivated)
	if k := l.s.Active("web"); k.JWK.Kid != standby || !k.Forced.Equal(l.now) {
		t.Errorf("%s signs, forced %v", k.JWK.Kid, k.Forced)
	}
	got := Exposed(before, l.s, l.now)
	want := Exposure{Successors: []Successor{{Ring: "web", Kid: standby, Kind: UnprovenStandby, SafeAt: l.s.SafeAt(l.s.Key(standby), l.now)}}}
	if diff := cmp.Diff(want, got); diff != "" || want.Successors[0].SafeAt.IsZero() {
		t.Errorf("exposed (-want +got):\n%s", diff)
	}
}

// TestForceOfAProvenStandby is an ordinary rotation.
func TestForceOfAProvenStandby(t *testing.T) {
	l := rotated(t, true)
	out := l.commit(order(Command{Rotate: "web", Force: true}))
	wantEvents(t, out, KeyRetired, KeyActivated)
}

func TestRevokeActive(t *testing.T) {
	for _, tc := range []struct {
		name            string
		proven, retired bool // what there is beside the active key
		force           bool
		signs           string // state before of the key that signs after
		kind            SuccessorKind
	}{
		{"a proven standby", true, true, false, "standby", ProvenStandby},
		{"a retired key", false, true, false, "retired", RetiredKey},
		{"nobody", false, false, false, "", NobodySigns},
		{"by force", false, true, true, "standby", UnprovenStandby},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := rotated(t, tc.proven)
			if !tc.retired {
				l.commit(order(Command{Revoke: []string{l.retired().JWK.Kid}}))
			}
			states := map[string]string{}
			for i := range l.s.Keys {
				states[l.s.Keys[i].JWK.Kid] = string(l.s.Keys[i].State(l.now))
			}
			before, kid := l.s, l.s.Active("web").JWK.Kid
			l.commit(order(Command{Revoke: []string{kid}, Force: tc.force}))
			k := l.s.Key(kid)
			if k.State(l.now) != Revoked || k.Closed.IsZero() || !k.SignUntil.Equal(before.Lease) {
				t.Errorf("revoked: %+v", k)
			}
			signs := ""
			if a := l.s.Active("web"); a != nil {
				signs = states[a.JWK.Kid]
			}
			if signs != tc.signs {
				t.Errorf("the %q key signs, want the %q", signs, tc.signs)
			}
			e := Exposed(before, l.s, l.now)
			if len(e.Successors) != 1 || e.Successors[0].Kind != tc.kind || len(e.Revoked) != 1 || e.Revoked[0].State != Active {
				t.Errorf("exposure %+v", e)
			}
			if set := mustSet(t, l.s, l.now, ViewAll); strings.Contains(string(set.Body), kid) {
				t.Error("it is still in the set")
			}
			// Its half is destroyed by the next plan, and nothing brings it back.
			if out := l.plan(); !strings.Contains(cmp.Diff(nil, out.Destroy), kid) {
				t.Errorf("destroys %v", out.Destroy)
			}
			if out := l.commit(order(Command{Revoke: []string{kid}})); contains(kinds(out), KeyRevoked) || out.Refused != nil {
				t.Errorf("again: %v, %v", out.Events, out.Refused)
			}
		})
	}
}

func contains(list []EventKind, k EventKind) bool {
	for _, e := range list {
		if e == k {
			return true
		}
	}
	return false
}

// TestRevokedWithoutSuccessor: nobody signs until the standby is proven, and
// then it does without being asked.
func TestRevokedWithoutSuccessor(t *testing.T) {
	l := rotated(t, false)
	l.commit(order(Command{RevokeRing: "web"}))
	for i := range l.s.Keys {
		if st := l.s.Keys[i].State(l.now); st != Revoked && st != Withdrawn && st != Standby {
			t.Errorf("%s is %s", l.s.Keys[i].JWK.Kid, st)
		}
	}
	l.turn()
	if l.s.Active("web") != nil || l.s.Standby("web") == nil {
		t.Fatal("somebody signs, or nobody is next")
	}
	l.publish()
	l.turn()
	next := l.s.Standby("web")
	l.now = l.s.SafeAt(next, l.now)
	l.turn()
	if a := l.s.Active("web"); a == nil || a.JWK.Kid != next.JWK.Kid || !a.Forced.IsZero() {
		t.Errorf("after the lead %v signs", a)
	}
}

func TestRevokeRefusesWhatItDoesNotKnow(t *testing.T) {
	l := rotated(t, true)
	out := l.commit(order(Command{Revoke: []string{l.s.Active("web").JWK.Kid, "nobody"}}))
	if !errors.Is(out.Refused, ErrUnknownKey) || contains(kinds(out), KeyRevoked) || !strings.Contains(out.Refused.Error(), "nothing was revoked") {
		t.Errorf("%v, %v", out.Refused, out.Events)
	}
	if out := l.commit(order(Command{RevokeRing: "api"})); !errors.Is(out.Refused, ErrUnknownRing) {
		t.Errorf("%v", out.Refused)
	}
}

// TestRevokeAdopted: a foreign key leaves the set, and is not adopted again
// from what still stands at the target.
func TestRevokeAdopted(t *testing.T) {
	file := bucketConfig()
	file.Targets[0].AdoptUntil = epoch.Add(week)
	l := newLife(t, file)
	l.commit()
	foreign := JWK{Kty: "RSA", Use: "sig", Alg: RS256, Kid: "2011-04-29", N: rfc7638N, E: "AQAB"}
	found := func(in *Input) { in.Foreign = map[string][]JWK{"bucket": {foreign}} }
	l.turn(found)
	out := l.commit(found, order(Command{Revoke: []string{foreign.Kid}}))
	if !contains(kinds(out), KeyRevoked) {
		t.Fatalf("%v, %v", out.Events, out.Refused)
	}
	for range 2 {
		if set := mustSet(t, l.s, l.now, ViewAll); strings.Contains(string(set.Body), foreign.Kid) {
			t.Error("it is in the set")
		}
		l.turn(found)
	}
}

// TestExposure holds the predicted times against the timing of the life.
func TestExposure(t *testing.T) {
	file := bucketConfig()
	file.Targets = append(file.Targets, Target{Name: "endpoint", Kind: TargetHTTP, Required: true})
	file.OutageBudget = dur("2h")
	l := settled(t, file)
	l.turn() // the lease is renewed
	kid := l.s.Active("web").JWK.Kid
	dry := l.plan(order(Command{Revoke: []string{kid}}))
	e := Exposed(l.s, dry.Next, l.now)
	want := Exposure{
		Revoked:        []RevokedKey{{Kid: kid, Ring: "web", State: Active, TokensUntil: l.s.Lease.Add(time.Duration(l.s.Key(kid).Tail))}},
		SharedBy:       l.now.Add(10 * time.Second),
		ConnectedUntil: l.now.Add(10*time.Second + 15*time.Minute + 10*time.Second),
		SignersUntil:   l.s.Lease.Add(10 * time.Second),
		ServedUntil:    l.s.ServeUntil().Add(10 * time.Second),
		ConsumersUntil: l.s.ServeUntil().Add(10*time.Second + 15*time.Minute),
	}
	if diff := cmp.Diff(want, e, cmpopts.IgnoreFields(Exposure{}, "Successors")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	l.file.SingleProcess = true
	l.s = l.s.Clone()
	l.s.Config.SingleProcess = true
	e = Exposed(l.s, dry.Next, l.now)
	if !e.SignersUntil.IsZero() || !e.ServedUntil.IsZero() || !e.ConsumersUntil.Equal(want.ConnectedUntil) {
		t.Errorf("with one process: %+v", e)
	}
}

// TestDamaged: a standby whose half is gone is replaced and never promoted; an
// active one gives way to the proven standby before its schedule. Fault 17.
func TestDamaged(t *testing.T) {
	l := rotated(t, true)
	bad := l.s.Standby("web").JWK.Kid
	damaged := func(in *Input) { in.Damaged = []string{bad} }
	if out := l.plan(damaged, order(Command{Rotate: "web", Force: true})); out.Refused == nil {
		t.Error("force promotes a key that cannot sign")
	}
	out := l.plan(damaged)
	if !contains(kinds(out), KeyDamaged) || contains(kinds(out), KeyActivated) || len(out.Create) != 1 {
		t.Fatalf("events %v, creates %v", out.Events, out.Create)
	}
	l.turn(damaged)
	l.turn(damaged)
	if s := l.s.Standby("web"); s == nil || s.JWK.Kid == bad {
		t.Fatalf("standby %v", s)
	}
	l.publish()
	l.turn(damaged)
	l.wait(l.s.Lead(l.now))
	active := l.s.Active("web").JWK.Kid
	next := l.s.Standby("web").JWK.Kid
	out = l.commit(func(in *Input) { in.Damaged = []string{active} })
	if l.s.Active("web").JWK.Kid != next || !contains(kinds(out), KeyActivated) || !contains(kinds(out), KeyDamaged) {
		t.Errorf("the damaged active key is not replaced: %v", out.Events)
	}
	if !cmp.Equal(codes(out), []string{"half_damaged"}) {
		t.Errorf("alarms %v", codes(out))
	}
}

// TestClockDoubt: nothing is written, closed or destroyed. Fault 28.
func TestClockDoubt(t *testing.T) {
	l := rotated(t, true)
	l.wait(52 * week)
	l.publish()
	out := l.plan(asked("web"), func(in *Input) { in.ClockDoubt = "it was set ahead" })
	if out.Next != nil || out.Create != nil || out.Destroy != nil || !out.Halted || !cmp.Equal(codes(out), []string{"clock_fault"}) {
		t.Errorf("%+v", out)
	}
	l.now = l.s.Lease.Add(-72 * time.Hour) // a lease that no sound clock would have written
	if out := l.plan(); !out.Halted || out.Next != nil || !cmp.Equal(codes(out), []string{"clock_fault"}) {
		t.Errorf("%+v", out)
	}
	var none *Snapshot
	if out := Plan(none, Input{Now: l.now, File: l.file, ClockDoubt: "it was set back"}); out.Next != nil {
		t.Error("founded by a clock in doubt")
	}
}
