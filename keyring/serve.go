package keyring

import "time"

// MaySign reports whether the holder of this snapshot may sign under a lease
// that ends at until. It is asked with the clock reading that iat is made of,
// and again before the token is released; late is the later of this host's
// wall clock and its boot clock.
func (s *Snapshot) MaySign(until, now, late time.Time) bool {
	return now.Before(until) && late.Before(until) && !s.LeaseFault(now)
}

// Signers are the keys that may sign for a ring, best first, of those whose
// private halves are at hand: the active one, or, where that is not loaded yet,
// those that were active before it, each within the lease that it was retired
// under. Where nobody is active nobody signs.
func (s *Snapshot) Signers(ring string, now time.Time, loaded func(kid string) bool) []*Key {
	active := s.Active(ring)
	if active == nil {
		return nil
	}
	if loaded(active.JWK.Kid) {
		return []*Key{active}
	}
	var out []*Key
	for i := range s.Keys {
		k := &s.Keys[i]
		if k.Ring == ring && !k.Activated.IsZero() && k.State(now) == Retired && loaded(k.JWK.Kid) {
			out = append(out, k)
		}
	}
	sortByRetirement(out)
	return out
}

// Held says which set stands at a target that a replica serves, and how long
// it may: what is kept beside the set, restarts included.
type Held struct {
	Lineage    string
	Generation uint64
	ServeUntil time.Time
}

// Hold is what stands at a target that was read back with this snapshot at a
// time. How long it may be served follows from the lease in it, never from when
// it was read: others may sign and rotate under that lease, not longer.
func (s *Snapshot) Hold(time.Time) Held {
	return Held{Lineage: s.Lineage, Generation: s.Generation, ServeUntil: s.ServeUntil()}
}

// Yields reports whether a target that holds this may be given the set of a
// snapshot: one of its own lineage that is not older. A target that holds
// nothing takes any.
func (h Held) Yields(s *Snapshot) bool {
	return h.Lineage == "" || (h.Lineage == s.Lineage && h.Generation <= s.Generation)
}

// Expired reports whether a set has to be out of service: another replica may
// by now sign with a key that is not in it. late is the later of this host's
// wall clock and its boot clock.
func (h Held) Expired(late time.Time) bool {
	return !late.Before(h.ServeUntil)
}
