package keyring

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// seconds-long lives: tail = T + 2s + λ, sync 1s, so that a check covers many
// rotations.
func randomConfig(t *rapid.T, rev int64, selfServed bool) Config {
	draw := func(name string, values ...int) Duration { return seconds(rapid.SampledFrom(values).Draw(t, name)) }
	kind := TargetBucket
	if selfServed {
		kind = TargetHTTP
	}
	c := Config{
		Name: "main", URL: "https://t.example", Revision: rev, ConsumerCache: seconds(20), JWKSMaxAge: seconds(5),
		Leeway: draw("leeway", 1, 9), ClockSkew: draw("E", 1, 4), SyncInterval: draw("sync", 1, 3), OutageBudget: draw("B", 20, 60, 400), MaxKeys: 100,
		Targets: []Target{{Name: "a", Kind: kind, Required: true}, {Name: "b", Kind: kind, Required: rapid.Bool().Draw(t, "required")}},
	}
	for _, name := range []string{"x", "y"} {
		if name == "x" || rapid.Bool().Draw(t, "second ring") {
			c.Rings = append(c.Rings, Ring{Name: name, Algorithm: rapid.SampledFrom([]Algorithm{EdDSA, ES256}).Draw(t, "alg"), Custody: "local", Rotate: "p", MaxTokenTTL: draw("T", 2, 30, 300)})
		}
	}
	return c
}

// randomLife is a replica alone with its store, whose file, clock, targets and
// operator do what they like.
type randomLife struct {
	*life
	rt     *rapid.T
	period time.Duration
	fresh  []Fresh
	gone   []string
}

func (l *randomLife) randomInput() Input {
	in := l.input()
	in.NextRun = func(_ string, after time.Time) time.Time { return after.Add(l.period) }
	in.Fresh, in.Gone = slices.Clone(l.fresh), slices.Clone(l.gone)
	if rapid.IntRange(0, 9).Draw(l.rt, "orphans?") == 0 {
		in.Orphans = []string{fmt.Sprint("lost", rapid.IntRange(0, 3).Draw(l.rt, "orphan"))}
	}
	if rapid.IntRange(0, 3).Draw(l.rt, "rotate?") == 0 {
		in.Command.Rotate = rapid.SampledFrom([]string{"x", "y", "z"}).Draw(l.rt, "ring")
	}
	return in
}

// step changes the world, then plans, holds the plan against the rules, and
// saves it as the next snapshot, or loses it.
func (l *randomLife) step() {
	switch rapid.IntRange(0, 11).Draw(l.rt, "what") {
	case 0, 1:
		l.wait(time.Duration(rapid.IntRange(0, 400).Draw(l.rt, "seconds")) * time.Second)
	case 2, 3, 4, 5, 6: // to the very instant at which something may become possible
		if !l.out.Wake.IsZero() {
			l.now = l.out.Wake
		}
	case 7, 8:
		if l.s != nil && l.s.Servable() {
			l.publish(rapid.SampledFrom([]string{"a", "b"}).Draw(l.rt, "target"))
		}
	case 9:
		if rapid.IntRange(0, 3).Draw(l.rt, "empty?") == 0 {
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(l.rt, "target")
			l.seen[name] = Observation{At: l.now} // an empty set there
		}
	default:
		if rapid.IntRange(0, 3).Draw(l.rt, "revise?") == 0 {
			l.file = randomConfig(l.rt, l.file.Revision+int64(rapid.IntRange(-1, 2).Draw(l.rt, "revision")), l.file.SelfServed())
		}
	}
	in := l.randomInput()
	out := l.planned(in)
	l.out = out
	if out.Next == nil || rapid.IntRange(0, 5).Draw(l.rt, "lost?") == 0 {
		return
	}
	l.checkActivations(out.Next)
	doc, err := Encode(out.Next)
	if err != nil {
		l.rt.Fatal(err)
	}
	if l.s, err = Decode(doc); err != nil {
		l.rt.Fatalf("Plan wrote what cannot be read: %v", err)
	}
	l.past = append(l.past, l.s)
	l.gone = nil
	if rapid.Bool().Draw(l.rt, "prompt") && l.s.Servable() {
		l.publish()
	}
}

// planned plans, deposits what was asked for, plans again, and checks what
// holds for every plan.
func (l *randomLife) planned(in Input) Outcome {
	out := l.pure(in)
	if n := len(out.Create); n > 0 && rapid.Bool().Draw(l.rt, "deposit?") {
		for _, r := range out.Create {
			l.serial++
			f := Fresh{Ring: r.Name, JWK: testJWK(l.t, r.Algorithm, r.RSABits, l.serial), Custody: r.Custody, Handle: "h"}
			in.Fresh = append(in.Fresh, f)
			if rapid.Bool().Draw(l.rt, "keep?") {
				l.fresh = append(l.fresh, f) // offered again later, named by then or not
			}
		}
		out = l.pure(in)
	}
	for _, h := range out.Destroy {
		k := l.s.Key(h.Kid)
		if k != nil && (k.Closed.IsZero() || !in.Now.After(k.SignUntil)) {
			l.rt.Fatalf("destroys %s, which is %s until %v, at %v", h.Kid, k.State(in.Now), k.SignUntil, in.Now)
		}
		if rapid.Bool().Draw(l.rt, "destroyed?") {
			l.gone = append(l.gone, h.Kid)
		}
	}
	if !out.Wake.IsZero() && !out.Wake.After(in.Now) {
		l.rt.Fatalf("wakes at %v, which is not after %v", out.Wake, in.Now)
	}
	l.comesToRest(in, out)
	l.refusalIsTrue(in, out)
	return out
}

// pure plans and holds the arguments against what they were.
func (l *randomLife) pure(in Input) Outcome {
	print := func() string {
		text := fmt.Sprintf("%v %+v %+v %v %v %v %v", in.Now, in.File, in.Seen, in.Fresh, in.Orphans, in.Gone, in.Command)
		if l.s == nil {
			return text
		}
		doc, err := Encode(l.s)
		if err != nil {
			l.rt.Fatal(err)
		}
		return text + string(doc)
	}
	before := print()
	out := Plan(l.s, in)
	if after := print(); after != before {
		l.rt.Fatalf("Plan changed what it was given:\n%s\n%s", before, after)
	}
	// Nor does what it returns share memory with it.
	if other := Plan(l.s, in); other.Next != nil {
		scribble(other.Next)
	}
	if after := print(); after != before {
		l.rt.Fatalf("a plan shares memory with what it was given:\n%s\n%s", before, after)
	}
	return out
}

func scribble(s *Snapshot) {
	s.Config.Targets[0].Name, s.Config.Rings[0].Name = "!", "!"
	for i := range s.Keys {
		s.Keys[i].Handle = "!"
		clear(s.Keys[i].Confirmed)
	}
	for i := range s.Orphans {
		s.Orphans[i].Kid = "!"
	}
	if s.Floor != nil {
		s.Floor.Span = 0
	}
}

// comesToRest: planning on its own results with the same input ends, after a
// few steps that each had to wait for the one before.
func (l *randomLife) comesToRest(in Input, out Outcome) {
	for range 8 {
		if out.Next == nil {
			return
		}
		s := out.Next
		out = Plan(s, in)
		if out.Next == nil {
			if again := Plan(s, in); again.Next != nil {
				l.rt.Fatal("two plans of one input differ")
			}
			return
		}
	}
	l.rt.Fatalf("does not come to rest: %v", out.Events)
}

// refusalIsTrue: at SafeAt, with nothing else changed, the rotation is taken.
func (l *randomLife) refusalIsTrue(in Input, out Outcome) {
	if out.Refused == nil || errors.Is(out.Refused, ErrUnknownRing) {
		return
	}
	e, ok := out.Refused.(*NotSafeYetError)
	if !ok || e.Ring != in.Command.Rotate {
		l.rt.Fatalf("ring %s is refused with %v", in.Command.Rotate, out.Refused)
	}
	if e.SafeAt.IsZero() || out.Next != nil { // what this plan writes may change the answer
		return
	}
	if !e.SafeAt.After(in.Now) {
		l.rt.Fatalf("refused, although safe since %v", e.SafeAt)
	}
	in.Now, in.Orphans = e.SafeAt, nil
	if later := Plan(l.s, in); later.Refused != nil {
		l.rt.Fatalf("refused at the time that was promised: %v", later.Refused)
	}
}

// checkActivations is what the lead is for: when a key becomes active, every
// snapshot that lacks it has been out of service for C on the slowest clock,
// but for the first keys of all.
func (l *randomLife) checkActivations(next *Snapshot) {
	for i := range next.Keys {
		k := &next.Keys[i]
		before := l.s.Key(k.JWK.Kid)
		if !k.isActive() || before == nil || before.isActive() || k.Founding {
			continue
		}
		for _, old := range l.past {
			if old.Key(k.JWK.Kid) != nil || !old.Servable() {
				continue
			}
			served := l.now
			if l.s.Config.SelfServed() {
				served = old.ServeUntil()
			}
			if out := served.Add(time.Duration(old.Config.ConsumerCache + next.Config.ClockSkew)); l.s.Config.SelfServed() && out.After(l.now) {
				l.rt.Fatalf("%s signs from %v, and generation %d, without it, may be served until %v and kept until %v", k.JWK.Kid, l.now, old.Generation, served, out)
			}
		}
	}
}

func TestPlanProperties(t *testing.T) {
	activations, floors := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		file := randomConfig(rt, 1, rapid.IntRange(0, 2).Draw(rt, "self_served") > 0)
		l := &randomLife{life: newLife(t, file), rt: rt, period: time.Duration(rapid.SampledFrom([]int{30, 600}).Draw(rt, "period")) * time.Second}
		for range rapid.IntRange(10, 250).Draw(rt, "steps") {
			l.step()
		}
		for _, s := range l.past {
			if s.Floor != nil {
				floors++
			}
			for i := range s.Keys {
				if s.Keys[i].isActive() {
					activations++
				}
			}
		}
	})
	if activations == 0 || floors == 0 {
		t.Errorf("%d active keys, %d floors: it proves nothing", activations, floors)
	}
}
