package rotator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simReplica is one replica: its process, which may be dead, and its host.
type simReplica struct {
	w  *simWorld
	id int

	// The host: what a crash leaves.
	offset   time.Duration // of its wall clock, within the bounds
	jump     time.Duration // what a fault has added to it
	disk     []byte        // the mark
	unkept   bool          // the disk takes no mark
	cut      bool          // from the store
	cutUntil time.Time
	lag      bool // its targets take nothing
	file     int  // which revision of the file it has
	// seen is the highest generation that this replica was ever shown, less
	// only where its state was lost.
	seen      uint64
	readAt    time.Time // true time of the last question that the store answered
	advance   bool
	publishes bool
	drift     keyring.Duration // its file differs by hand

	// The process.
	loop     *loop
	rot      *Rotator
	alive    bool
	accepted *keyring.Snapshot
	loaded   map[string]bool
	damaged  map[string]bool
	told     []string // what was last told to be damaged
	observed map[string]keyring.Observation
	answer   StoreClock
	answered bool
	wake     time.Time // true time at which the loop wants to tick again

	// The tick that runs, nil between ticks.
	tick      *simTick
	asked     time.Time
	began     time.Time
	accepting bool
	commanded keyring.Command
	replies   chan answer
	// trace is what the process has asked of the store, and what it was answered:
	// with what stands in the store it determines the process.
	trace []string
}

// simTick is one tick as a coroutine: it stops at every call of the store.
type simTick struct {
	next func() (struct{}, bool)
	stop func()
	hold func() // hands control to the scheduler; does not return after a crash
	call *simCall
}

// simCall is one call of the store that is on its way.
type simCall struct {
	op      string
	happen  func() (string, error)
	write   *simWrite
	applied bool
	done    bool
	err     error
	sent    time.Time // this host's wall clock
	date    time.Time // the store's, when it happened
	result  string    // what was answered, for the trace
}

// trace describes the call that a tick goes on from.
func (t *simTick) trace() []string {
	if t.call == nil {
		return []string{"begin"}
	}
	return []string{fmt.Sprintf("%s %v %s", t.call.op, t.call.err, t.call.result)}
}

// simCrash unwinds a tick whose process is dead.
type simCrash struct{}

func newSimReplica(w *simWorld, id int) *simReplica {
	return &simReplica{w: w, id: id, offset: w.offset(), advance: true, publishes: true}
}

func (r *simReplica) instant() Instant {
	return Instant{Wall: r.w.now.Add(r.offset + r.jump), Boot: r.w.now.Sub(simEpoch.Add(-time.Hour))}
}

func (r *simReplica) wall() time.Time { return r.instant().Wall }

// config is this replica's file now.
func (r *simReplica) config() keyring.Config {
	c := r.w.files[r.file].Clone()
	if r.drift != 0 {
		c.OutageBudget += r.drift
	}
	return c
}

// start makes a process of the replica.
func (r *simReplica) start() {
	if r.jump.Abs() < time.Hour {
		r.jump = 0 // a host that boots sets its clock; docs/safety.md, assumptions
	}
	cfg := Config{
		Store: simCustody{r}, Halves: map[string]Halves{"vaultkv": simCustody{r}}, Issuers: []keyring.Config{r.config()},
		Advance: r.advance, Publishes: r.publishes, Accept: r.accept,
		Confirmed: func(string) map[string]keyring.Observation { return maps.Clone(r.observed) },
		Damaged:   r.damagedKids, Foreign: r.foreign, Published: r.published,
		Now: r.instant, Logger: slog.New(slog.DiscardHandler),
		OnEvent: func(_ string, e keyring.Event) { r.w.event(r, e) }, OnError: func(string, error) {},
	}
	if !r.w.climate.single {
		cfg.StoreClock = func() (StoreClock, bool) { return r.answer, r.answered }
	}
	rot, err := New(cfg)
	if err != nil {
		r.w.fail("start", "%v", err)
	}
	r.rot, r.loop = rot, rot.loops["main"]
	r.loop.jitter = rand.New(rand.NewPCG(r.w.chance.seed(), uint64(r.id)))
	r.loop.sleep = func(_ context.Context, d time.Duration) error { return r.pause(d) }
	r.loop.mark = mark{path: "state", put: r.put}
	if r.disk != nil {
		if r.loop.mark.snapshot, err = keyring.Decode(r.disk); err != nil {
			r.w.fail("mark", "%v", err)
		}
	}
	r.alive, r.answered, r.wake = true, false, r.w.now
	r.accepted, r.loaded, r.damaged, r.observed = nil, map[string]bool{}, map[string]bool{}, map[string]keyring.Observation{}
	r.loop.recall()
	r.w.log("replica %d starts with file %d", r.id, r.file+1)
}

func (r *simReplica) put(_ string, doc []byte) error {
	if r.unkept {
		return errors.New("no space left on device")
	}
	r.disk = slices.Clone(doc)
	return nil
}

func (r *simReplica) accept(_ string, s *keyring.Snapshot) {
	if s.Frozen != nil {
		r.w.fail("I2", "replica %d was handed a frozen manifest", r.id)
	}
	r.accepted, r.seen = s, max(r.seen, s.Generation)
	for kid := range r.damaged {
		if k := s.Key(kid); k == nil || !k.Closed.IsZero() || !k.Retired.IsZero() {
			delete(r.damaged, kid)
		}
	}
}

// pause stands for a sleep of the loop.
func (r *simReplica) pause(d time.Duration) error {
	return r.call("pause", func() (string, error) { return "", nil })
}

// crash ends the process at once. A write that is on its way may land yet.
func (r *simReplica) crash() {
	if t := r.tick; t != nil {
		if c := t.call; c != nil && c.write != nil && !c.applied && r.w.store.reachable(r) == nil && r.w.chance.one(2) {
			r.w.store.flight = append(r.w.store.flight, *c.write)
		}
		r.tick = nil
		t.stop()
	}
	r.w.died(r)
	r.alive, r.accepting, r.replies = false, false, nil
	r.w.count.Crashes++
	r.w.log("replica %d crashes", r.id)
}

// abandon ends the wait for a write that has not happened yet; it may later.
func (r *simReplica) abandon() {
	if r.tick == nil || r.tick.call == nil || r.tick.call.write == nil || r.tick.call.applied {
		return
	}
	c := r.tick.call
	r.w.store.flight = append(r.w.store.flight, *c.write)
	c.err, c.done = errSimLost, true
	r.resume()
}

// begin starts a tick, with a command if there is one, and runs it to its
// first call of the store.
func (r *simReplica) begin(cmd *command) {
	r.w.count.Ticks++
	t := &simTick{}
	r.began, r.accepting, r.commanded = r.w.now, cmd != nil && cmd.accept, keyring.Command{}
	if cmd != nil {
		r.commanded = cmd.cmd
	}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			if x := recover(); x != nil {
				if _, dead := x.(simCrash); !dead {
					panic(x)
				}
			}
		}()
		t.hold = func() {
			if !yield(struct{}{}) {
				panic(simCrash{})
			}
		}
		d := r.loop.tick(context.Background(), cmd)
		r.wake = r.w.now.Add(d)
	})
	r.tick = t
	r.resume()
}

// resume runs a tick to its next call, or to its end.
func (r *simReplica) resume() {
	t := r.tick
	r.trace = append(r.trace, t.trace()...)
	if _, more := t.next(); more {
		return
	}
	r.tick, r.accepting = nil, false
	if r.replies != nil {
		select {
		case a := <-r.replies:
			r.w.answered(r, a)
		default:
			r.w.fail("command", "replica %d ends a tick and does not answer its command", r.id)
		}
		r.replies = nil
	}
}

// call is one call of the store out of a tick.
func (r *simReplica) call(op string, happen func() (string, error), write ...simWrite) error {
	t := r.tick
	if t == nil { // a plan outside of a tick
		r.w.fail("world", "call of %s outside of a tick", op)
	}
	c := &simCall{op: op, happen: happen, sent: r.wall()}
	if len(write) > 0 {
		c.write = &write[0]
	}
	t.call = c
	r.asked = r.w.now
	for !c.done {
		t.hold()
	}
	t.call = nil
	if c.op != "pause" && !c.date.IsZero() {
		r.answer, r.answered = StoreClock{Date: c.date.Truncate(time.Second), Sent: c.sent, Received: r.wall()}, true
	}
	return c.err
}

// step takes the replica one step on: the call that waits happens, or its
// reply arrives, or it fails.
func (r *simReplica) step() {
	c := r.tick.call
	switch {
	case c == nil:
		r.w.fail("world", "a tick without a call")
	case c.applied:
		r.reply(c)
	case c.op == "pause":
		c.done = true
		r.resume()
	default:
		r.apply(c)
	}
}

// reply lets a reply arrive, or be lost.
func (r *simReplica) reply(c *simCall) {
	lost := r.w.climate.saves && !r.w.healing && r.w.chance.one(16)
	if unreachable := r.w.store.reachable(r); unreachable != nil || lost {
		// Of a write the custody reads back what happened. Where it cannot, it
		// is not known.
		if c.write == nil || unreachable != nil || r.w.chance.one(2) {
			c.err, c.date = errSimLost, time.Time{}
		}
		r.w.fault("lost reply")
	}
	c.done = true
	r.resume()
}

func (r *simReplica) apply(c *simCall) {
	w := r.w
	if err := w.store.reachable(r); err != nil {
		c.err, c.done = err, true
		r.resume()
		return
	}
	if w.climate.saves && !w.healing && w.chance.one(14) {
		w.fault("failed call")
		if c.write != nil && w.chance.one(2) { // on its way, and nobody waits for it
			w.store.flight = append(w.store.flight, *c.write)
			w.fault("late write")
		}
		c.err, c.done = errSimLost, true
		r.resume()
		return
	}
	c.result, c.err = c.happen()
	c.applied = true
	c.date = w.now.Add(w.storeOffset)
	if w.chance.one(2) { // the reply is there at once
		r.reply(c)
	}
}

// finish runs the tick that is under way to its end, without faults.
func (r *simReplica) finish() {
	for n := 0; r.tick != nil; n++ {
		if n > 4000 {
			r.w.fail("I11", "a tick of replica %d does not end", r.id)
		}
		r.step()
	}
}

// foreign is what the publisher finds at targets that keyturn did not write yet.
func (r *simReplica) foreign(string) map[string][]keyring.JWK {
	if len(r.w.adopted) == 0 {
		return nil
	}
	out := map[string][]keyring.JWK{}
	for _, p := range r.w.places {
		if (p.by == r.id || p.by == simShared) && p.held.Lineage == "" {
			out[p.target.Name] = r.w.adopted
		}
	}
	return out
}

// published is what the side files on this host, and the shared targets, say.
func (r *simReplica) published(context.Context, string) (keyring.Mark, string, error) {
	for _, p := range r.w.places {
		if (p.by == r.id || p.by == simShared) && p.held.Lineage != "" {
			return keyring.Mark{Lineage: p.held.Lineage, Generation: p.held.Generation}, p.target.Name, nil
		}
	}
	return keyring.Mark{}, "", nil
}
