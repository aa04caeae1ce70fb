package keyring

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func asked(ring string) func(*Input) {
	return func(in *Input) { in.Command = Command{Rotate: ring} }
}

// refusal is the *NotSafeYetError of a plan that was asked to rotate web.
func refusal(t testing.TB, out Outcome) *NotSafeYetError {
	t.Helper()
	var e *NotSafeYetError
	if !errors.As(out.Refused, &e) {
		t.Fatalf("not refused: %v, events %v", out.Refused, out.Events)
	}
	return e
}

// TestEarlyRotationIsRefused at each stage of a standby, with what it waits for.
func TestEarlyRotationIsRefused(t *testing.T) {
	l := newLife(t, bucketConfig())
	l.commit()
	if diff := cmp.Diff(&NotSafeYetError{Ring: "web"}, refusal(t, l.plan(asked("web")))); diff != "" {
		t.Errorf("before there are keys (-want +got):\n%s", diff)
	}
	l.turn()
	l.publish()
	wantEvents(t, l.commit(), KeyConfirmed, KeyActivated)
	if diff := cmp.Diff(&NotSafeYetError{Ring: "web"}, refusal(t, l.plan(asked("web")))); diff != "" {
		t.Errorf("without a standby (-want +got):\n%s", diff)
	}
	out := l.plan(asked("web"), l.deposit(l.plan()))
	wantEvents(t, out, KeyCreated)
	if e := refusal(t, out); !slices.Equal(e.Waiting, []string{"bucket"}) || !e.SafeAt.IsZero() {
		t.Errorf("in the write that makes the standby: %+v", e)
	}
	l.turn()
	e := refusal(t, l.plan(asked("web")))
	if !slices.Equal(e.Waiting, []string{"bucket"}) || !e.SafeAt.IsZero() {
		t.Errorf("not read back: %+v", e)
	}
	if want := `ring "web": the standby key is not yet published at "bucket"`; e.Error() != want {
		t.Errorf("says %q, want %q", e, want)
	}
	l.publish()
	l.turn()
	e = refusal(t, l.plan(asked("web")))
	if want := epoch.Add(15*time.Minute + 10*time.Second); !e.SafeAt.Equal(want) || e.Waiting != nil {
		t.Errorf("read back: %+v, want safe at %v", e, want)
	}
	if want := `ring "web": consumers may not know the standby key before 2026-01-01T00:15:10Z`; e.Error() != want {
		t.Errorf("says %q, want %q", e, want)
	}
	l.now = e.SafeAt.Add(-time.Millisecond)
	if out := l.commit(asked("web")); out.Next != nil || refusal(t, out) == nil {
		t.Errorf("a millisecond before: %v", out.Events)
	}
	l.now = e.SafeAt
	out = l.commit(asked("web"))
	wantEvents(t, out, KeyRetired, KeyActivated)
	if out.Refused != nil {
		t.Errorf("done and refused: %v", out.Refused)
	}
}

func TestRotatingAnUnknownRing(t *testing.T) {
	l := settled(t, bucketConfig())
	out := l.plan(asked("nobody"))
	if err := out.Refused; !errors.Is(err, ErrUnknownRing) || err.Error() != `ring "nobody": no such ring` {
		t.Errorf("got %v", err)
	}
	if slices.Contains(kinds(out), KeyActivated) {
		t.Error("another ring was rotated")
	}
}

// TestOneRingOfTwo: a command rotates the ring that it names.
func TestOneRingOfTwo(t *testing.T) {
	file := bucketConfig()
	file.Rings = append(file.Rings, Ring{Name: "api", Algorithm: ES256, Custody: "vaultkv", Rotate: "weekly", MaxTokenTTL: dur("1h")})
	l := settled(t, file)
	before := l.s.Active("api").JWK.Kid
	next := l.s.Standby("web").JWK.Kid
	l.turn(asked("web"))
	if got := l.s.Active("web").JWK.Kid; got != next {
		t.Errorf("web signs with %s, want %s", got, next)
	}
	if got := l.s.Active("api").JWK.Kid; got != before {
		t.Errorf("api signs with %s, want %s", got, before)
	}
}

// TestDueButNotProven: the old key signs on, an alarm says why, and the
// rotation happens once, as soon as it is safe.
func TestDueButNotProven(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn(asked("web")) // a new standby, which the target does not show
	active := l.s.Active("web")
	due := active.Activated.Add(week)
	l.now = due.Add(20 * time.Second) // two ticks of slack
	l.turn()
	if got := codes(l.out); got != nil {
		t.Errorf("within the slack: %v", got)
	}
	l.wait(time.Millisecond)
	l.turn()
	if diff := cmp.Diff([]Alarm{{
		Code: "rotation_overdue", Issuer: "main", Ring: "web", Kid: active.JWK.Kid, Since: due,
		Message: `ring "web" was due to rotate at ` + due.Format(time.RFC3339) + `: standby key ` + l.s.Standby("web").JWK.Kid + ` is not yet read back from "bucket"`,
	}}, l.out.Alarms); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	l.wait(3 * 24 * time.Hour)
	l.turn()
	l.publish()
	l.turn()
	// 910 s from now, which is a millisecond after a whole second: rounded up.
	if want := "standby key " + l.s.Standby("web").JWK.Kid + " may sign from " + l.now.Add(911*time.Second).Format(time.RFC3339) + " on"; len(l.out.Alarms) != 1 || !hasSuffix(l.out.Alarms[0].Message, want) {
		t.Errorf("alarms %v, want one that ends with %q", l.out.Alarms, want)
	}
	if l.s.Active("web").JWK.Kid != active.JWK.Kid {
		t.Fatal("rotated to a key that consumers may not know")
	}
	if want := l.now.Add(910 * time.Second); !l.out.Wake.Equal(want) {
		t.Errorf("wakes at %v, want %v", l.out.Wake, want)
	}
	l.now = l.out.Wake
	events := l.turn()
	if n := count(events, KeyActivated); n != 1 {
		t.Errorf("%d rotations: %v", n, events)
	}
	if got := codes(l.out); got != nil {
		t.Errorf("alarms remain: %v", got)
	}
}

func hasSuffix(s, end string) bool { return len(s) >= len(end) && s[len(s)-len(end):] == end }

func count(events []EventKind, kind EventKind) int {
	n := 0
	for _, e := range events {
		if e == kind {
			n++
		}
	}
	return n
}

// TestAfterALongAbsence: however many runs of the schedule were missed, one
// rotation follows.
func TestAfterALongAbsence(t *testing.T) {
	l := settled(t, bucketConfig())
	l.wait(10 * week)
	if n := count(l.turn(), KeyActivated); n != 1 {
		t.Errorf("%d rotations", n)
	}
	l.publish()
	l.turn()
	l.wait(time.Hour)
	if n := count(l.turn(), KeyActivated); n != 0 {
		t.Error("rotated again although it is not due")
	}
}

func TestScheduleThatNeverRuns(t *testing.T) {
	file := bucketConfig()
	file.Rings[0].Rotate = "never"
	l := settled(t, file)
	l.wait(10 * week)
	l.turn()
	l.publish()
	if events := l.turn(); count(events, KeyActivated) != 0 || len(l.out.Alarms) != 0 {
		t.Errorf("%v, alarms %v", events, codes(l.out))
	}
	if n := count(l.turn(asked("web")), KeyActivated); n != 1 {
		t.Error("an operator cannot rotate it")
	}
}

// TestVoidedConfirmation: a later read-back without the key takes back what an
// earlier one said, and the lead starts anew.
func TestVoidedConfirmation(t *testing.T) {
	l := settled(t, bucketConfig())
	kid := l.s.Standby("web").JWK.Kid
	first := l.s.Standby("web").Confirmed["bucket"]
	show := func(now time.Time, kids ...string) { l.seen["bucket"] = Observation{At: now, Kids: kids} }

	show(first.Add(-time.Second)) // older than what is recorded
	wantNothing(t, l.commit())
	show(first) // as old
	wantNothing(t, l.commit())
	delete(l.seen, "bucket") // the target is down
	wantNothing(t, l.commit())
	show(l.now)
	out := l.commit(asked("web"))
	wantEvents(t, out, ConfirmationVoided)
	if e := refusal(t, out); !slices.Equal(e.Waiting, []string{"bucket"}) {
		t.Errorf("%+v", e)
	}
	wantNothing(t, l.commit())
	l.wait(time.Minute)
	show(l.now, kid)
	wantEvents(t, l.commit(), KeyConfirmed)
	if e := refusal(t, l.plan(asked("web"))); !e.SafeAt.Equal(l.now.Add(910 * time.Second)) {
		t.Errorf("safe at %v, a lead after the new read-back is %v", e.SafeAt, l.now.Add(910*time.Second))
	}
}

func wantNothing(t testing.TB, out Outcome) {
	t.Helper()
	if out.Next != nil {
		t.Fatalf("wrote %v", out.Events)
	}
}

// TestEveryRequiredTargetCounts, and no other.
func TestEveryRequiredTargetCounts(t *testing.T) {
	file := bucketConfig()
	file.Targets = []Target{
		{Name: "a", Kind: TargetBucket, Required: true}, {Name: "b", Kind: TargetConfirm, Required: true}, {Name: "mirror", Kind: TargetBucket},
	}
	l := newLife(t, file)
	l.turn()
	l.publish("a", "mirror")
	wantEvents(t, l.commit(), KeyConfirmed, KeyConfirmed)
	wantNothing(t, l.commit())
	l.wait(time.Minute)
	l.publish("b")
	wantEvents(t, l.commit(), KeyConfirmed, KeyActivated)
}

// TestApart: a rotator that publishes nothing takes what replicas serve
// themselves as read back; what is shared it must see.
func TestApart(t *testing.T) {
	file := bucketConfig()
	file.Targets = []Target{{Name: "cdn", Kind: TargetConfirm, Required: true}, {Name: "endpoint", Kind: TargetHTTP}, {Name: "file", Kind: TargetFile, Required: true}}
	l := newLife(t, file)
	l.apart = true
	l.turn()
	k := l.s.Standby("web")
	if got := l.s.WaitingFor(k); !slices.Equal(got, []string{"cdn"}) {
		t.Errorf("waits for %q", got)
	}
	if len(k.Confirmed) != 2 || !k.Confirmed["file"].Equal(l.now) {
		t.Errorf("confirmed %v", k.Confirmed)
	}
	l.publish("cdn")
	l.turn()
	if l.s.Active("web") == nil {
		t.Error("not active")
	}
	l.wait(time.Hour)
	wantNothing(t, l.commit()) // not anew at every look
}

// TestConfirmedByThePlansClock: the clock that made an observation may have been
// wrong then; what is old by this one tells nothing, and what is of its future no more
// than that the target shows the key.
func TestConfirmedByThePlansClock(t *testing.T) {
	for _, tc := range []struct {
		at   time.Duration // of the read-back, from the plan's clock
		want bool
	}{{-time.Second, true}, {-20 * time.Minute, false}, {365 * 24 * time.Hour, true}} {
		l := newLife(t, bucketConfig())
		l.turn()
		kid := l.s.Standby("web").JWK.Kid
		l.wait(24 * time.Hour)
		out := l.commit(func(in *Input) {
			in.Seen = map[string]Observation{"bucket": {At: l.now.Add(tc.at), Kids: []string{kid}}}
		})
		got, ok := l.s.Key(kid).Confirmed["bucket"]
		if ok != tc.want || (ok && !got.Equal(l.now)) {
			t.Errorf("seen at %v: recorded %v, %v, %v", tc.at, got, ok, out.Events)
		}
	}
}
