package keyring

import (
	"slices"
	"time"
)

// standbys sees to it that every ring has a published standby of its
// configured algorithm, and no more than that. While the algorithm changes the
// old standby stays until the new one is proven, so that an emergency always
// finds one.
func (p *planner) standbys() {
	if !p.founded() {
		p.foundKeys()
		return
	}
	for _, r := range p.next.Config.Rings {
		p.dropStandbys(r)
		if slices.ContainsFunc(p.next.standbys(r.Name), p.next.matches) {
			continue
		}
		i := p.fresh(r)
		if i < 0 {
			p.out.Create = append(p.out.Create, r)
			continue
		}
		p.add(p.in.Fresh[i], r, false)
	}
}

// foundKeys writes the first keys of an issuer, of all its rings in one write:
// a ring that came a write later would sign with a key that is missing from
// copies of the set of the first.
func (p *planner) foundKeys() {
	var ready []int
	for _, r := range p.next.Config.Rings {
		i := p.fresh(r)
		if i < 0 {
			p.out.Create = append(p.out.Create, r)
			continue
		}
		ready = append(ready, i)
	}
	if len(p.out.Create) > 0 {
		return
	}
	t := p.next.Config.Timing()
	p.next.Lease = p.in.Now.Add(t.B + t.R)
	for n, r := range p.next.Config.Rings {
		// An issuer that adopts a foreign set was never unpublished.
		p.add(p.in.Fresh[ready[n]], r, len(p.next.Adopted) == 0)
	}
}

// fresh finds a deposited key that suits a ring, -1 if there is none.
func (p *planner) fresh(r Ring) int {
	return slices.IndexFunc(p.in.Fresh, func(f Fresh) bool {
		k := Key{JWK: f.JWK, Ring: f.Ring, Custody: f.Custody}
		closed := slices.ContainsFunc(p.next.Orphans, func(o Orphan) bool { return o.Kid == f.JWK.Kid })
		return f.Ring == r.Name && p.next.matches(&k) && p.next.Key(f.JWK.Kid) == nil && !closed
	})
}

func (p *planner) add(f Fresh, r Ring, founding bool) {
	p.next.Keys = append(p.next.Keys, Key{
		JWK: f.JWK, Ring: r.Name, Custody: f.Custody, Handle: f.Handle, Founding: founding, Created: p.in.Now,
		MaxTTL: r.MaxTokenTTL, Tail: Duration(p.next.Config.Timing().Tail),
	})
	p.event(KeyCreated, r.Name, f.JWK.Kid, "")
}

// dropStandbys retires standbys that a change of algorithm made obsolete: all
// of them once one of the new algorithm is proven, all but the best until then.
func (p *planner) dropStandbys(r Ring) {
	standbys := p.next.standbys(r.Name)
	proven := func(k *Key) bool { return p.proven(k) }
	old := slices.DeleteFunc(slices.Clone(standbys), p.next.matches)
	keep := -1
	if !slices.ContainsFunc(standbys, func(k *Key) bool { return p.next.matches(k) && proven(k) }) && len(old) > 0 {
		keep = max(0, slices.IndexFunc(old, proven))
	}
	for i, k := range old {
		if i != keep {
			p.retire(k, p.in.Now) // it never signed
		}
	}
}

func (p *planner) proven(k *Key) bool {
	safe := p.next.SafeAt(k, p.in.Now)
	return !safe.IsZero() && !p.in.Now.Before(safe)
}

func (p *planner) retire(k *Key, signUntil time.Time) {
	k.Retired, k.SignUntil = p.in.Now, signUntil
	p.event(KeyRetired, k.Ring, k.JWK.Kid, "")
}

// rotate promotes the proven standby of every ring that is due, or that an
// operator named.
func (p *planner) rotate() {
	for _, name := range p.in.Rotate {
		if _, ok := p.next.Config.Ring(name); !ok {
			p.refuse(name, &NotSafeYetError{Ring: name})
		}
	}
	for _, r := range p.next.Config.Rings {
		asked := slices.Contains(p.in.Rotate, r.Name)
		due := p.due(r)
		if !asked && (due.IsZero() || p.in.Now.Before(due)) {
			continue
		}
		next := p.candidate(r)
		if next == nil {
			if asked {
				p.refuse(r.Name, p.notSafe(r))
			}
			continue
		}
		if active := p.next.Active(r.Name); active != nil {
			// Until the lease that is stored now a replica that has not heard
			// of this write may sign with it.
			p.retire(active, p.base.Lease)
		}
		next.Activated = p.in.Now
		p.event(KeyActivated, r.Name, next.JWK.Kid, "")
	}
}

// candidate is the proven standby of a ring, one of the configured algorithm
// before another.
func (p *planner) candidate(r Ring) *Key {
	var best *Key
	for _, k := range p.next.standbys(r.Name) {
		// The half and the public key of what this plan adds are not stored yet.
		if p.base.Key(k.JWK.Kid) != nil && p.proven(k) && (best == nil || p.next.matches(k)) {
			best = k
		}
	}
	return best
}

func (p *planner) refuse(ring string, err error) {
	if p.out.Refused == nil {
		p.out.Refused = map[string]error{}
	}
	p.out.Refused[ring] = err
}

func (p *planner) notSafe(r Ring) error {
	e := &NotSafeYetError{Ring: r.Name}
	for _, k := range p.next.standbys(r.Name) { // two while the algorithm changes: the first that is safe
		safe := p.next.SafeAt(k, p.in.Now)
		switch {
		case safe.IsZero() && e.SafeAt.IsZero():
			e.Waiting = p.next.WaitingFor(k)
		case !safe.IsZero() && (e.SafeAt.IsZero() || safe.Before(e.SafeAt)):
			e.SafeAt, e.Waiting = safe, nil
		}
	}
	return e
}
