package rotator

import (
	"bytes"
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// checkCommit holds a manifest that is about to be stored against what is
// there and against what was committed before it.
func (w *simWorld) checkCommit(f simWrite, next *keyring.Snapshot) {
	cur, truth := w.store.version, w.store.truth
	w.checkClock(f, next)
	switch {
	case cur.snap != nil && cur.snap.Schema != keyring.Schema:
		w.fail("I12", "replica %d writes over a manifest of schema %d", f.by.id, cur.snap.Schema)
	case next.Frozen != nil:
		if !w.faults.disturbed {
			w.fail("I2", "replica %d freezes a manifest that nobody has touched: %s", f.by.id, next.Frozen.Reason)
		}
		return
	case truth == nil:
		if next.Generation != 1 || len(next.Keys) != 0 {
			w.fail("I2", "an issuer is founded with generation %d and %d keys", next.Generation, len(next.Keys))
		}
		return
	case f.accept:
		w.checkAccepted(f, next)
		return
	case cur.snap == nil:
		w.fail("I2", "replica %d founds the issuer again", f.by.id)
	case cur.snap.Frozen != nil:
		w.fail("I2", "replica %d plans on a frozen manifest", f.by.id)
	case cur.snap.WriteID != truth.WriteID:
		w.fail("I2", "replica %d plans on a restored manifest, generation %d, after %d", f.by.id, cur.snap.Generation, truth.Generation)
	case next.Generation != truth.Generation+1 || next.Lineage != truth.Lineage || next.WriteID == truth.WriteID:
		w.fail("I2", "generation %d of %s follows %d of %s", next.Generation, next.Lineage, truth.Generation, truth.Lineage)
	case next.Generation <= f.by.seen && f.by.tick != nil:
		w.fail("I2", "replica %d writes generation %d and has seen %d", f.by.id, next.Generation, f.by.seen)
	}
	w.checkRevision(f, truth, next)
	w.checkRings(f, truth, next)
	for i := range truth.Keys {
		w.checkKey(f, truth, next, &truth.Keys[i])
	}
	if w.faults.schema && !bytes.Contains(mustEncode(next), []byte("x_newer")) {
		w.fail("I12", "replica %d drops what a newer keyturn wrote", f.by.id)
	}
}

func mustEncode(s *keyring.Snapshot) []byte {
	doc, err := keyring.Encode(s)
	if err != nil {
		panic(err)
	}
	return doc
}

// checkClock is fault 28: nobody writes by a clock that is out of bounds.
func (w *simWorld) checkClock(f simWrite, next *keyring.Snapshot) {
	least, most := f.began.Add(-2*simE-time.Second), f.sent.Add(2*simE+time.Second)
	if next.Frozen == nil && (next.WrittenAt.Before(least) || next.WrittenAt.After(most)) {
		w.fail("clock", "replica %d writes at %s, and it was between %s and %s", f.by.id, next.WrittenAt, least, most)
	}
}

// checkRevision: the highest revision holds, and nobody changes what it says.
func (w *simWorld) checkRevision(f simWrite, before, after *keyring.Snapshot) {
	diff := keyring.Diff(before.Config, after.Config)
	if a, b := before.Config.Revision, after.Config.Revision; b < a || (b == a && len(diff) > 0) {
		w.fail("config", "replica %d puts revision %d in force after %d: %v", f.by.id, b, a, diff)
	}
}

// checkRings is I3.
func (w *simWorld) checkRings(f simWrite, before, after *keyring.Snapshot) {
	for _, ring := range simRings(after) {
		active, standby, algorithms := 0, 0, map[keyring.Algorithm]bool{}
		for i := range after.Keys {
			k := &after.Keys[i]
			if k.Ring != ring {
				continue
			}
			switch k.State(after.WrittenAt) {
			case keyring.Active:
				active++
			case keyring.Standby:
				standby++
				algorithms[k.JWK.Alg] = true
			}
		}
		if active > 1 || standby > 2 || standby > len(algorithms) {
			w.fail("I3", "ring %s has %d active and %d standby keys", ring, active, standby)
		}
		was := before.Active(ring)
		if _, kept := after.Config.Ring(ring); was != nil && active == 0 && kept && after.Key(was.JWK.Kid).Revoked.IsZero() {
			w.fail("I3", "ring %s lost its active key by replica %d", ring, f.by.id)
		}
	}
}

// checkKey is I5 and I7 for one key.
func (w *simWorld) checkKey(f simWrite, before, after *keyring.Snapshot, old *keyring.Key) {
	kid := old.JWK.Kid
	k := after.Key(kid)
	if k == nil {
		if _, exists := w.store.halves[kid]; exists {
			w.fail("I7", "%s is forgotten and its half is still there", kid)
		}
		return
	}
	if until := before.SignUntil(old); k.Revoked.IsZero() && after.SignUntil(k).Before(until) {
		w.fail("I5", "sign_until of %s fell from %v to %v", kid, until, after.SignUntil(k))
	}
	if k.Tail < old.Tail || k.MaxTTL < old.MaxTTL {
		w.fail("I5", "tail or max_ttl of %s was lowered", kid)
	}
	if !old.Closed.IsZero() && k.Closed.IsZero() {
		w.fail("I7", "closed key %s came back", kid)
	}
	if !old.Revoked.IsZero() && k.Revoked.IsZero() {
		w.fail("I8", "revoked key %s came back", kid)
	}
	activated := old.State(before.WrittenAt) != keyring.Active && k.State(after.WrittenAt) == keyring.Active
	if activated && slices.Contains(f.by.told, kid) && f.by.tick != nil {
		w.fail("I3", "replica %d activates %s and knows that its half is gone", f.by.id, kid)
	}
}

// checkAccepted: nothing that was revoked, closed or withdrawn comes back.
func (w *simWorld) checkAccepted(f simWrite, next *keyring.Snapshot) {
	if w.faults.lost {
		return
	}
	for _, r := range w.replicas {
		if next.Generation <= r.seen && r != f.by {
			w.fail("I2", "generation %d is accepted, and replica %d has seen %d", next.Generation, r.id, r.seen)
		}
	}
	if next.Generation <= f.by.seen {
		w.fail("I2", "generation %d is accepted by replica %d, which has seen %d", next.Generation, f.by.id, f.by.seen)
	}
	w.store.forgetAbove(f.by.seen)
	for i := range next.Keys {
		k := &next.Keys[i]
		if st := k.State(next.WrittenAt); st != keyring.Active && st != keyring.Standby {
			continue
		}
		if w.store.closed[k.JWK.Kid] > 0 {
			w.fail("I8", "%s comes back with keyturn accept", k.JWK.Kid)
		}
		if _, ok := w.store.halves[k.JWK.Kid]; !ok {
			w.fail("I3", "%s is %s in what is accepted, and its half is gone", k.JWK.Kid, k.State(next.WrittenAt))
		}
	}
}

// committed takes a manifest that is stored now into account.
func (w *simWorld) committed(f simWrite, s *keyring.Snapshot) {
	w.count.Commits++
	if s.Frozen != nil {
		if w.store.version.snap.Frozen != nil && !f.accept {
			w.count.Freezes++
		}
		w.log("replica %d freezes: generation %d, %s", f.by.id, s.Generation, s.Frozen.Reason)
		return
	}
	before := w.store.truth
	w.store.truth = s
	if f.accept {
		w.count.Accepts++
		w.faults.disturbed = false
	}
	if before == nil || keyringDiffers(before, s) || f.accept {
		w.tokens.inForce(&s.Config)
	}
	for i := range s.Keys {
		w.noteKey(before, s, &s.Keys[i])
	}
	for _, o := range s.Orphans {
		w.store.orphaned[o.Kid] = true
	}
	w.log("replica %d stores generation %d (version %d, planned by its clock at %.3fs)", f.by.id, s.Generation, w.store.version.number, s.WrittenAt.Sub(simEpoch).Seconds())
}

func keyringDiffers(a, b *keyring.Snapshot) bool {
	return a.Config.Revision != b.Config.Revision
}

func (w *simWorld) noteKey(before, s *keyring.Snapshot, k *keyring.Key) {
	kid := k.JWK.Kid
	var old *keyring.Key
	if before != nil {
		old = before.Key(kid)
	}
	switch {
	case !k.Revoked.IsZero() && w.store.revoked[kid] == 0:
		w.store.revoked[kid] = s.Generation
		if before != nil && old != nil {
			span := before.Config.Timing().S
			if before.Floor != nil {
				span = max(span, time.Duration(before.Floor.Span))
			}
			end := w.now.Add(span + simE)
			if at := before.ServeUntil().Add(simE); at.After(end) {
				end = at
			}
			w.tokens.gone[kid] = end
			w.tokens.mute[kid] = before.Lease.Add(simE)
		}
		w.count.Revocations++
	case k.State(s.WrittenAt) == keyring.Active:
		w.store.active[kid] = true
		if old == nil || old.State(before.WrittenAt) != keyring.Active {
			w.count.Rotations++
			w.log("   %s of ring %s is active", kid, k.Ring)
		}
	}
	if !k.Closed.IsZero() && w.store.closed[kid] == 0 {
		w.store.closed[kid] = s.Generation
	}
}

// checkDestroy is the other half of I7.
func (w *simWorld) checkDestroy(r *simReplica, kid string) {
	s := w.store.truth
	if s == nil {
		w.fail("I7", "replica %d destroys %s of an issuer that is not there", r.id, kid)
	}
	k := s.Key(kid)
	switch {
	case w.store.closed[kid] > 0, w.faults.lost:
	case k != nil && k.Closed.IsZero():
		w.fail("I7", "replica %d destroys the half of %s, which is %s", r.id, kid, k.State(s.WrittenAt))
	case k == nil && !slices.ContainsFunc(s.Orphans, func(o keyring.Orphan) bool { return o.Kid == kid }) && !w.store.orphaned[kid]:
		w.fail("I7", "replica %d destroys the half of %s, which no manifest has recorded as closed", r.id, kid)
	}
}
