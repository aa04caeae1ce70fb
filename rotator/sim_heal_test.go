package rotator

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// end leaves no coroutine behind.
func (w *simWorld) end() {
	for _, r := range w.replicas {
		if t := r.tick; t != nil {
			r.tick = nil
			t.stop()
		}
	}
}

// heal mends all that is broken, lets the replicas run by their own clockwork
// and sees to it that the issuer is alive: the walk proves nothing otherwise.
func (w *simWorld) heal() {
	w.healing = true
	w.healed = w.now
	w.mendAll()
	until := w.now.Add(w.healingTime())
	rotations := map[string]int{}
	last := map[string]string{}
	for w.now.Before(until) {
		w.runUntil(w.now.Add(simSync))
		s := w.store.truth
		if s == nil {
			continue
		}
		for _, r := range s.Config.Rings {
			if k := s.Active(r.Name); k != nil && last[r.Name] != k.JWK.Kid {
				last[r.Name] = k.JWK.Kid
				rotations[r.Name]++
				w.checkPunctual(s, r, k, rotations[r.Name])
			}
		}
		if f := w.frozen(); f != nil {
			w.mend(true)
			for _, r := range w.replicas {
				if r.tick != nil {
					r.finish()
				}
			}
		}
	}
	for _, r := range w.replicas {
		for _, a := range r.rot.Alarms() {
			w.log("replica %d: %s: %s", r.id, a.Code, a.Message)
		}
	}
	w.checkHealed(rotations)
}

// healingTime is enough for each ring to rotate once, and for what was before
// to be cleared away.
func (w *simWorld) healingTime() time.Duration {
	longest := time.Duration(0)
	for _, r := range w.files[len(w.files)-1].Rings {
		longest = max(longest, w.keys.pool.gap(r.Rotate))
	}
	lead := w.files[len(w.files)-1].Timing().Lead
	if s := w.store.truth; s != nil {
		lead = max(lead, s.Lead(w.now))
	}
	return longest + 2*lead + 600*time.Second
}

func (w *simWorld) mendAll() {
	w.faults.storeDown, w.faults.storeSealed = false, false
	if w.faults.schema && w.store.version.snap != nil && w.store.version.snap.Schema != keyring.Schema {
		w.newer()
	}
	w.storeOffset = 0
	if w.now.After(w.adoptUntil) {
		w.adopted = nil // the operator has taken what stood there away
	}
	newest := len(w.files) - 1
	for _, r := range w.replicas {
		if r.tick != nil {
			r.finish()
		}
		r.cut, r.lag, r.unkept, r.jump, r.drift = false, false, false, 0, 0
		if r.alive && w.climate.single && w.climate.clocks {
			r.crash()
		}
		r.file = newest
		if !r.alive {
			r.start()
		}
		r.loop.file = r.config()
		r.wake = w.now
	}
	w.store.flight = nil
}

// runUntil lets every replica run by its own clockwork.
func (w *simWorld) runUntil(t time.Time) {
	for {
		next := slices.MinFunc(w.replicas, func(a, b *simReplica) int { return a.wake.Compare(b.wake) })
		if next.wake.After(t) {
			w.advance(t.Sub(w.now))
			return
		}
		if d := next.wake.Sub(w.now); d > 0 {
			w.advance(d)
		}
		for range 3 { // a read-back wakes the loop
			before := next.accepted
			next.begin(nil)
			next.finish()
			w.publish(next)
			w.pull()
			w.readShared(next)
			if next.accepted == before {
				break
			}
		}
		for _, r := range w.replicas {
			if r != next {
				w.publish(r)
			}
		}
		w.signAll()
		if !next.wake.After(w.now) {
			next.wake = w.now.Add(5 * time.Millisecond)
		}
	}
}

// checkPunctual is I11.
func (w *simWorld) checkPunctual(s *keyring.Snapshot, ring keyring.Ring, k *keyring.Key, nth int) {
	if nth < 2 {
		return
	}
	schedule, err := ParseSchedule(ring.Rotate)
	if err != nil {
		w.fail("world", "%v", err)
	}
	var before *keyring.Key
	for i := range s.Keys {
		if o := &s.Keys[i]; o.Ring == ring.Name && !o.Retired.IsZero() && !o.Activated.IsZero() && (before == nil || o.Retired.After(before.Retired)) {
			before = o
		}
	}
	if before == nil {
		return
	}
	due := schedule.Next(before.Activated)
	if at := k.Created.Add(s.Lead(w.now)); at.After(due) {
		due = at
	}
	sync := time.Duration(s.Config.SyncInterval)
	if due.Before(w.healed.Add(s.Lead(w.now) + 4*sync)) {
		return // it was held up by what has been mended since
	}
	if late := k.Activated.Sub(due); late > 2*sync+simE {
		w.fail("I11", "ring %s was due at %s and rotated %s later", ring.Name, due, late)
	}
}

// checkHealed: every ring is alive, and nothing is left lying about.
func (w *simWorld) checkHealed(rotations map[string]int) {
	s := w.store.truth
	if s == nil || s.Frozen != nil || w.frozen() != nil {
		w.fail("I11", "nobody may plan on the manifest after all is mended")
	}
	now := w.now
	for _, r := range s.Config.Rings {
		if rotations[r.Name] < 2 {
			w.fail("I11", "ring %s does not rotate after all is mended", r.Name)
		}
		if s.Active(r.Name) == nil || s.Standby(r.Name) == nil {
			w.fail("I11", "ring %s has no active or no standby key after all is mended", r.Name)
		}
		for _, x := range w.replicas {
			if !w.sign(x, x.accepted, r.Name) {
				w.fail("I11", "replica %d does not sign for ring %s after all is mended", x.id, r.Name)
			}
		}
	}
	named := map[string]bool{}
	for i := range s.Keys {
		k := &s.Keys[i]
		h, exists := w.store.halves[k.JWK.Kid]
		named[k.JWK.Kid] = true
		if st := k.State(now); (st == keyring.Active || st == keyring.Standby) && (!exists || h.damaged) {
			w.fail("I3", "the half of the %s key %s is gone, and it is not replaced", st, k.JWK.Kid)
		}
		if !k.Closed.IsZero() && now.Sub(k.Closed) > 3*simSync && exists {
			w.fail("I7", "the half of %s, closed %s ago, is still there", k.JWK.Kid, now.Sub(k.Closed))
		}
	}
	for kid, h := range w.store.halves {
		if !named[kid] && now.Sub(h.created) > 3*grace(s) {
			w.fail("I7", "the half of %s, which no manifest names, is not swept after %s", kid, now.Sub(h.created))
		}
	}
}

func (c *simCount) add(o *simCount) {
	c.Steps += o.Steps
	c.Ticks += o.Ticks
	c.Crashes += o.Crashes
	c.Tokens += o.Tokens
	c.Exempt += o.Exempt
	c.Commits += o.Commits
	c.Rotations += o.Rotations
	c.Rollbacks += o.Rollbacks
	c.Revocations += o.Revocations
	c.Freezes += o.Freezes
	c.Accepts += o.Accepts
	for k, n := range o.Faults {
		c.Faults[k] += n
	}
}
