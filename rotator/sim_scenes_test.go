package rotator

import (
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simScenes are the small worlds.
func simScenes() []simScene {
	return []simScene{
		{"founding", func(*simWorld) {}, beginBoth, 1, false, checkOne},
		{"a rotation with a crash anywhere", beforeRotation, beginBoth, 1, true, checkOne},
		{"rollback against closing", beforeClosing, func(w *simWorld) {
			k := lastRetired(w.store.truth)
			w.beginCommand(w.replicas[0], keyring.Command{Rotate: "a", To: k.JWK.Kid})
			w.replicas[1].begin(nil)
		}, 0, true, checkOne},
		{"revocation against the renewal of the lease", beforeRenewal, func(w *simWorld) {
			w.beginCommand(w.replicas[0], keyring.Command{Revoke: []string{w.store.truth.Active("a").JWK.Kid}, Force: true})
			w.replicas[1].begin(nil)
		}, 0, true, checkOne},
		{"accept against a late write", beforeAccept, func(w *simWorld) {
			w.beginAccept(w.replicas[0])
			w.replicas[1].begin(nil)
		}, 1, false, checkAccept},
	}
}

func beginBoth(w *simWorld) {
	for _, r := range w.replicas {
		r.begin(nil)
	}
}

func (w *simWorld) beginCommand(r *simReplica, c keyring.Command) {
	r.replies = make(chan answer, 1)
	r.begin(&command{cmd: c, answer: r.replies})
}

func (w *simWorld) beginAccept(r *simReplica) {
	r.replies = make(chan answer, 1)
	r.begin(&command{accept: true, answer: r.replies})
}

// turnBoth lets both replicas tick and publish, one after the other.
func (w *simWorld) turnBoth() {
	for range 3 {
		for _, r := range w.replicas {
			r.begin(nil)
			r.finish()
			w.publish(r)
		}
	}
	w.signAll()
}

// leap lets time pass in which nobody does anything, then both tick.
func (w *simWorld) leap(d time.Duration) {
	w.advance(d)
	w.turnBoth()
}

// beforeRotation: a proven standby, and the schedule is due by both clocks.
func beforeRotation(w *simWorld) {
	w.turnBoth()
	w.leap(80 * time.Second)
	w.leap(80 * time.Second)
	w.advance(w.store.truth.Active("a").Activated.Add(241*time.Second).Sub(w.now) + simE)
}

// beforeClosing: the key that was active before may be closed now, by one of
// the clocks, and is not yet.
func beforeClosing(w *simWorld) {
	beforeRotation(w)
	w.replicas[1].begin(nil)
	w.replicas[1].finish()
	w.publish(w.replicas[1])
	w.advance(time.Second)
	w.replicas[0].begin(nil)
	w.replicas[0].finish()
	w.advance(lastRetired(w.store.truth).SignUntil.Add(simE).Sub(w.now) + time.Second)
}

// beforeRenewal: the lease is due.
func beforeRenewal(w *simWorld) {
	w.turnBoth()
	w.leap(80 * time.Second)
	w.advance(simSync)
}

// beforeAccept: the store went back by some versions, its manifest is frozen,
// and a write of the time before is on its way with a version that comes again.
func beforeAccept(w *simWorld) {
	w.turnBoth()
	w.leap(80 * time.Second)
	old := w.store.version
	halves := map[string]simHalf{}
	for k, v := range w.store.halves {
		halves[k] = v
	}
	w.leap(2 * simSync)
	r := w.replicas[1]
	w.advance(simSync)
	r.begin(nil)
	for r.tick != nil && (r.tick.call.write == nil || r.tick.call.applied) {
		r.stepOnce()
	}
	if r.tick == nil {
		w.fail("world", "replica 1 had nothing to write")
	}
	late := *r.tick.call.write
	w.replicas[0].begin(nil)
	w.replicas[0].finish()
	r.finish()
	w.store.version, w.store.halves = old, halves
	w.faults.disturbed, w.faults.since = true, w.now
	w.store.flight = append(w.store.flight, late)
	for _, r := range w.replicas {
		r.begin(nil)
		r.finish()
	}
}

func lastRetired(s *keyring.Snapshot) *keyring.Key {
	var last *keyring.Key
	for i := range s.Keys {
		if k := &s.Keys[i]; !k.Retired.IsZero() && !k.Activated.IsZero() && (last == nil || k.Retired.After(last.Retired)) {
			last = k
		}
	}
	return last
}

// checkOne: one active and one standby key, with their halves.
func checkOne(w *simWorld) {
	s := w.store.truth
	active, standby := s.Active("a"), s.Standby("a")
	if active == nil || standby == nil {
		w.fail("I11", "after all is over: active %v, standby %v", active, standby)
	}
	for _, k := range []*keyring.Key{active, standby} {
		if _, ok := w.store.halves[k.JWK.Kid]; !ok {
			w.fail("I7", "the half of %s is gone", k.JWK.Kid)
		}
	}
	for _, r := range w.replicas {
		if !w.sign(r, r.accepted, "a") {
			w.fail("I11", "replica %d does not sign after all is over", r.id)
		}
	}
}

func checkAccept(w *simWorld) {
	if w.frozen() != nil {
		w.mend(true)
		for _, r := range w.replicas {
			if r.tick != nil {
				r.finish()
			}
		}
		w.runUntil(w.now.Add(90 * time.Second))
	}
	checkOne(w)
}
