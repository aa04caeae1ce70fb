package keyring

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Mark is the highest that a replica has seen of an issuer, as far as it knows.
type Mark struct {
	Lineage    string
	Generation uint64
	// StoreVersion is the store's version of that manifest, 0 if not known.
	StoreVersion int
}

// MarkOf is the mark that a snapshot is.
func MarkOf(s *Snapshot) Mark {
	if s == nil {
		return Mark{}
	}
	return Mark{s.Lineage, s.Generation, s.StoreVersion}
}

// Freeze is what a replica writes over a manifest that is not the one it has
// seen: the same manifest with the mark against it, so that no replica plans on
// it, whatever that one remembers. stored is nil where nothing readable is
// there; then known, the replica's own last manifest, is kept in its place, or a
// manifest that names the issuer alone. It returns nil where the stored one is
// frozen already by a mark as high.
func Freeze(stored, known *Snapshot, mark Mark, issuer, reason, writeID string, now time.Time) *Snapshot {
	if stored != nil && stored.Frozen != nil && !mark.above(stored.Frozen) {
		return nil
	}
	var next *Snapshot
	switch {
	case stored != nil:
		next = stored.Clone()
	case known != nil:
		next = known.Clone()
	default:
		next = &Snapshot{Schema: Schema, Lineage: mark.Lineage, Config: Config{Name: issuer}, Keys: []Key{}}
		if next.Lineage == "" {
			next.Lineage = "lost"
		}
	}
	next.Generation++
	next.WriteID, next.WrittenAt = writeID, now.UTC().Truncate(time.Millisecond)
	next.Frozen = &Frozen{At: next.WrittenAt, Reason: reason, Lineage: mark.Lineage, Generation: mark.Generation, StoreVersion: mark.StoreVersion}
	return next
}

// above reports whether a mark says more than the one in a frozen manifest.
func (m Mark) above(f *Frozen) bool {
	if m.Lineage == "" {
		return false
	}
	return f.Lineage == "" || (m.Lineage == f.Lineage && m.Generation > f.Generation)
}

// ErrNotFrozen refuses to accept where there is nothing to mend.
var ErrNotFrozen = errors.New("the stored manifest is the one that this replica knows")

// LowerMarkError refuses keyturn accept on a replica that has seen less than
// another one.
type LowerMarkError struct {
	Own, Highest Mark
}

func (e *LowerMarkError) Error() string {
	if e.Own.Lineage == "" {
		return "this replica has no mark: run keyturn accept on one that has seen the manifest before; where none has, restore the manifest from a backup"
	}
	if e.Own.Lineage != e.Highest.Lineage {
		return fmt.Sprintf("this replica has seen generation %d of lineage %s, and another one, or the store, generation %d of lineage %s: one of them has a wrong state_dir or a wrong store; find out which lineage published sets show (header Keyturn-Lineage, side files), and run keyturn accept --force on a replica of that one only, for it destroys all private halves that its manifest does not name",
			e.Own.Generation, e.Own.Lineage, e.Highest.Generation, e.Highest.Lineage)
	}
	return fmt.Sprintf("this replica has seen generation %d of lineage %s, and another one generation %d of %s: run keyturn accept there; --force gives up what was written since",
		e.Own.Generation, e.Own.Lineage, e.Highest.Generation, e.Highest.Lineage)
}

// Acceptance is what keyturn accept commits.
type Acceptance struct {
	Next *Snapshot
	// Retired and Dropped are kids whose private halves are gone: active keys
	// and standbys. Destroyed are halves that come back to be destroyed again.
	Retired, Dropped, Destroyed []string
}

// Accept puts a replica's last manifest in the place of the stored one, as the
// next generation of both. halves lists, by custody, the kids whose private
// halves exist: a restored store has lost the youngest and brought back
// destroyed ones. What is recorded as closed here is destroyed by the next tick.
//
// stored is nil where nothing readable is there. It refuses with
// *LowerMarkError where another replica has seen more, unless forced.
func Accept(known, stored *Snapshot, halves map[string][]string, force bool, writeID string, now time.Time) (Acceptance, error) {
	if err := acceptable(known, stored, force); err != nil {
		return Acceptance{}, err
	}
	now = now.UTC().Truncate(time.Millisecond)
	a := Acceptance{Next: known.Clone()}
	n := a.Next
	if stored != nil && stored.Lineage == n.Lineage {
		n.inherit(stored)
	}
	for i := range n.Keys {
		a.settle(&n.Keys[i], n.Lease, slices.Contains(halves[n.Keys[i].Custody], n.Keys[i].JWK.Kid), now)
	}
	for _, kids := range halves {
		for _, kid := range kids {
			named := n.Key(kid) != nil || slices.ContainsFunc(n.Orphans, func(o Orphan) bool { return o.Kid == kid })
			if !named {
				n.Orphans = append(n.Orphans, Orphan{Kid: kid, Closed: now})
				a.Destroyed = append(a.Destroyed, kid)
			}
		}
	}
	slices.Sort(a.Destroyed)
	if stored != nil {
		n.Generation = max(n.Generation, stored.Generation)
		if stored.Frozen != nil {
			n.Generation = max(n.Generation, stored.Frozen.Generation)
		}
	}
	n.Generation++
	n.WriteID, n.WrittenAt, n.Frozen = writeID, now, nil
	return a, nil
}

func acceptable(known, stored *Snapshot, force bool) error {
	own := MarkOf(known)
	switch {
	case known == nil:
		return &LowerMarkError{}
	case known.Schema != Schema || (stored != nil && stored.Schema != Schema):
		return ErrSchema
	case stored == nil:
		return nil
	case stored.Frozen == nil && stored.Lineage == known.Lineage && stored.Generation == known.Generation && stored.WriteID == known.WriteID:
		return ErrNotFrozen
	case stored.Frozen == nil && stored.Lineage == known.Lineage && stored.Generation > known.Generation:
		return ErrNotFrozen // this replica is behind, and reads it at its next tick: nothing is mended by force
	case stored.Lineage != known.Lineage && !force:
		return &LowerMarkError{own, Mark{stored.Lineage, stored.Generation, stored.StoreVersion}}
	case stored.Frozen != nil && own.below(stored.Frozen) && !force:
		f := stored.Frozen
		return &LowerMarkError{own, Mark{f.Lineage, f.Generation, f.StoreVersion}}
	}
	return nil
}

// below reports whether a frozen manifest names a mark that this one does not reach.
func (m Mark) below(f *Frozen) bool {
	return f.Lineage != "" && (f.Lineage != m.Lineage || f.Generation > m.Generation)
}

// settle makes one key agree with the halves that exist.
func (a *Acceptance) settle(k *Key, lease time.Time, exists bool, now time.Time) {
	kid := k.JWK.Kid
	switch {
	case !k.Closed.IsZero() && !k.Destroyed.IsZero() && exists: // came back with the restore
		k.Destroyed = time.Time{}
		a.Destroyed = append(a.Destroyed, kid)
	case exists || !k.Closed.IsZero():
	case k.isActive():
		// Replicas that have it in memory sign with it until their lease ends.
		k.Retired, k.SignUntil = now, lease
		a.Retired = append(a.Retired, kid)
	case k.isStandby():
		k.Retired, k.SignUntil = now, now
		a.Dropped = append(a.Dropped, kid)
	}
}

// inherit takes over from another manifest of the lineage what stays true
// whichever of the two holds: that a key was revoked, and until when a replica
// may have been allowed to sign.
func (s *Snapshot) inherit(from *Snapshot) {
	s.Lease = latest(s.Lease, from.Lease)
	for i := range s.Keys {
		k, o := &s.Keys[i], from.Key(s.Keys[i].JWK.Kid)
		if o == nil {
			continue
		}
		if k.Closed.IsZero() && !k.isActive() && !k.isStandby() { // what is closed stays closed, and is withdrawn in its time
			k.SignUntil = latest(k.SignUntil, from.SignUntil(o))
		}
		if k.Revoked.IsZero() && !o.Revoked.IsZero() {
			k.SignUntil = latest(latest(k.SignUntil, o.SignUntil), s.SignUntil(k))
			k.Revoked = o.Revoked
			if k.Closed.IsZero() {
				k.Closed = o.Closed
			}
		}
	}
	for i := range s.Adopted {
		for _, o := range from.Adopted {
			if o.JWK.Kid == s.Adopted[i].JWK.Kid && s.Adopted[i].Revoked.IsZero() {
				s.Adopted[i].Revoked = o.Revoked
			}
		}
	}
}
