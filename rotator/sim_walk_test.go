package rotator

import (
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// walk is what happens by chance, before all is mended.
func (w *simWorld) walk(steps int) {
	for range steps {
		w.count.Steps++
		w.advance(w.pace())
		w.store.land()
		if w.chance.one(16) {
			w.backup()
		}
		w.signAll()
		w.hasten()
		for range 2 + w.chance.pick(4) {
			w.act()
		}
	}
}

// hasten lets operators rotate as soon as they are let, and put a revision in
// force while the world has just changed.
func (w *simWorld) hasten() {
	if w.climate.revisions && w.now.Sub(w.stirred) < 60*time.Second && w.chance.one(6) {
		w.reload(w.replicas[w.chance.pick(len(w.replicas))])
	}
	if !w.climate.hurry {
		return
	}
	for _, r := range w.replicas {
		s := r.accepted
		if !r.alive || s == nil || r.tick != nil || !r.advance || r.cut {
			continue
		}
		for _, ring := range s.Config.Rings {
			k := s.Standby(ring.Name)
			if k == nil || r.tick != nil {
				continue
			}
			if at := s.SafeAt(k, r.wall()); !at.IsZero() && !at.After(r.wall()) && w.chance.one(3) {
				w.command(r, keyring.Command{Rotate: ring.Name})
			}
		}
	}
}

// pace is how long nobody does anything: mostly short, sometimes exactly until
// something is due somewhere.
func (w *simWorld) pace() time.Duration {
	switch n := w.chance.pick(16); {
	case n < 4:
		return w.chance.duration(time.Millisecond, time.Second)
	case n < 11:
		return w.chance.duration(time.Second, 12*time.Second)
	case n < 12:
		return w.chance.duration(10*time.Second, 60*time.Second)
	}
	return w.untilDue()
}

// untilDue is the time until one of the instants at which something changes by
// age, or a little before or after it.
func (w *simWorld) untilDue() time.Duration {
	var due []time.Duration
	consider := func(t time.Time, r *simReplica) {
		if d := t.Sub(r.wall()); d > 0 && d < 120*time.Second {
			due = append(due, d)
		}
	}
	for _, r := range w.replicas {
		s := r.accepted
		if !r.alive || s == nil {
			continue
		}
		consider(s.Lease, r)
		consider(s.ServeUntil(), r)
		for i := range s.Keys {
			k := &s.Keys[i]
			switch k.State(r.wall()) {
			case keyring.Standby:
				consider(s.SafeAt(k, r.wall()), r)
			case keyring.Retired:
				consider(k.SignUntil, r)
				consider(k.SignUntil.Add(simE), r)
			case keyring.Closed:
				consider(k.WithdrawAt(), r)
			}
		}
	}
	if len(due) == 0 {
		return w.chance.duration(time.Millisecond, 10*time.Second)
	}
	d := due[w.chance.pick(len(due))]
	return max(time.Millisecond, d+simPick(w.chance, 0, time.Millisecond, -time.Millisecond, time.Second))
}

// act is one thing that somebody does.
func (w *simWorld) act() {
	r := w.replicas[w.chance.pick(len(w.replicas))]
	switch n := w.chance.pick(100); {
	case n < 55:
		w.turn(r)
	case n < 75:
		w.publish(r)
	case n < 80:
		w.pull()
	case n < 88:
		w.operate(r)
	default:
		w.disturb(r)
	}
}

// turn takes a replica's process one step on.
func (w *simWorld) turn(r *simReplica) {
	switch {
	case !r.alive:
		if w.chance.one(3) {
			r.start()
		}
	case r.tick == nil:
		r.begin(nil)
	case w.climate.crashes && w.chance.one(60):
		w.fault("crash within a tick")
		r.crash()
	default:
		for range 1 + w.chance.pick(6) {
			if r.tick != nil {
				r.step()
			}
		}
	}
}

// operate is what operators do: a command on one replica.
func (w *simWorld) operate(r *simReplica) {
	if r.tick != nil && r.alive { // somebody who is free
		r = w.replicas[(r.id+1)%len(w.replicas)]
	}
	if !r.alive || r.tick != nil || !r.advance || r.accepted == nil {
		return
	}
	s := r.accepted
	rings := s.Config.Rings
	if len(rings) == 0 || len(s.Keys) == 0 {
		return
	}
	ring := rings[w.chance.pick(len(rings))].Name
	switch n := w.chance.pick(10); {
	case w.frozen() != nil && n < 5:
		w.mend(false)
	case w.climate.rollbacks && n < 4:
		w.rollBack(r, s, ring)
	case w.climate.revocations && n < 7 && w.chance.one(3):
		w.revoke(r, s, ring)
	case w.climate.hurry || (n == 9 && w.chance.one(3)):
		w.command(r, keyring.Command{Rotate: ring, Force: w.climate.force && w.chance.one(12)})
	}
}

// command begins a tick with a command; its answer is read when the tick is over.
func (w *simWorld) command(r *simReplica, c keyring.Command) {
	r.replies = make(chan answer, 1)
	if c.Force {
		w.fault("forced")
	}
	r.begin(&command{cmd: c, answer: r.replies, dryRun: w.chance.one(10)})
}

func (w *simWorld) rollBack(r *simReplica, s *keyring.Snapshot, ring string) {
	var kids []string
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Ring == ring && !k.Retired.IsZero() {
			kids = append(kids, k.JWK.Kid)
		}
	}
	if len(kids) == 0 {
		return
	}
	w.count.Rollbacks++
	kid := kids[len(kids)-1]
	if w.chance.one(3) {
		kid = kids[w.chance.pick(len(kids))]
	}
	w.log("rollback of ring %s to %s at replica %d", ring, kid, r.id)
	w.command(r, keyring.Command{Rotate: ring, To: kid})
}

func (w *simWorld) revoke(r *simReplica, s *keyring.Snapshot, ring string) {
	c := keyring.Command{Force: w.climate.force && w.chance.one(3)}
	switch k := s.Keys[w.chance.pick(len(s.Keys))]; {
	case w.chance.one(5):
		c.RevokeRing = ring
	case w.chance.one(2) && s.Active(ring) != nil:
		c.Revoke = []string{s.Active(ring).JWK.Kid}
	default:
		c.Revoke = []string{k.JWK.Kid}
	}
	if len(s.Adopted) > 0 && w.chance.one(4) {
		c = keyring.Command{Revoke: []string{s.Adopted[0].JWK.Kid}}
	}
	w.log("revocation of %v%s at replica %d", c.Revoke, c.RevokeRing, r.id)
	w.fault("revocation")
	w.command(r, c)
}

// event is what a loop tells.
func (w *simWorld) event(r *simReplica, e keyring.Event) {
	if e.Kind == keyring.KeyCreated || e.Kind == keyring.KeyActivated || e.Kind == keyring.ConfigAdopted {
		w.conspire(r)
		w.stirred = w.now
	}
	if e.Kind != keyring.LeaseRenewed {
		w.log("   %d: %s %s %s", r.id, e.Kind, e.Ring, e.Kid)
	}
}

// frozen is what stands in the way of planning, nil if nothing does.
func (w *simWorld) frozen() *simVersion {
	v := &w.store.version
	if w.store.truth == nil || (v.snap != nil && v.snap.Frozen == nil && v.snap.WriteID == w.store.truth.WriteID) || w.faults.schema {
		return nil
	}
	return v
}

// highest is the replica with the highest mark.
func (w *simWorld) highest() *simReplica {
	return slices.MaxFunc(w.replicas, func(a, b *simReplica) int {
		switch {
		case a.seen < b.seen:
			return -1
		case a.seen > b.seen:
			return 1
		}
		return b.id - a.id
	})
}

// answered takes the answer to a command into account.
func (w *simWorld) answered(r *simReplica, a answer) {
	outcome := "done"
	var lower *keyring.LowerMarkError
	// An operator who has looked everywhere, and knows that nobody has seen more.
	w.insist = errors.As(a.err, &lower) && r == w.highest() && w.allRead()
	switch {
	case a.err != nil:
		outcome = a.err.Error()
	case a.result.After != nil:
		keyring.Exposed(a.result.Before, a.result.After, r.wall())
	}
	w.log("   replica %d answers: %s", r.id, outcome)
}
