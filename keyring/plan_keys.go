package keyring

import (
	"fmt"
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
			p.create(r)
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
			p.create(r)
			continue
		}
		ready = append(ready, i)
	}
	if len(ready) < len(p.next.Config.Rings) {
		return
	}
	t := p.next.Config.Timing()
	p.next.Lease = p.in.Now.Add(t.B + t.R)
	for n, r := range p.next.Config.Rings {
		// An issuer that adopts a foreign set was never unpublished.
		p.add(p.in.Fresh[ready[n]], r, !p.next.Config.adopts())
	}
}

// create asks for a new key, unless another replica is likely to be at it: of
// several that generate one, all but one leave an orphan.
func (p *planner) create(r Ring) {
	if !p.yields() {
		p.out.Create = append(p.out.Create, r)
	}
}

func (p *planner) yields() bool {
	skew := time.Duration(p.base.Config.ClockSkew)
	return p.in.Others && p.in.Command.isZero() && p.in.Now.Before(p.yieldsUntil()) && !p.base.WrittenAt.After(p.in.Now.Add(skew))
}

// yieldsUntil is when the replica that wrote last has had its time.
func (p *planner) yieldsUntil() time.Time { return p.base.WrittenAt.Add(p.slack()) }

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
	for _, k := range p.next.standbys(r.Name) {
		if slices.Contains(p.in.Damaged, k.JWK.Kid) {
			p.retire(k, p.in.Now) // it never signed, and never can
			p.event(KeyDamaged, r.Name, k.JWK.Kid, "")
		}
	}
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
	for _, r := range p.next.Config.Rings {
		asked := p.asked(r)
		due := p.due(r)
		if !asked && (due.IsZero() || p.in.Now.Before(due)) {
			continue
		}
		next := p.candidate(r, asked)
		if next == nil {
			if asked {
				p.refuse(p.notSafe(r))
			}
			p.succeed(r)
			continue
		}
		if active := p.next.Active(r.Name); active != nil {
			// Until the lease that is stored now a replica that has not heard
			// of this write may sign with it.
			p.retire(active, p.base.Lease)
			if slices.Contains(p.in.Damaged, active.JWK.Kid) {
				p.event(KeyDamaged, r.Name, active.JWK.Kid, "")
			}
		}
		if !p.proven(next) {
			next.Forced = p.in.Now
			p.event(KeyForced, r.Name, next.JWK.Kid, "")
		}
		next.Activated = p.in.Now
		p.event(KeyActivated, r.Name, next.JWK.Kid, "")
	}
}

// asked reports whether an operator wants the ring rotated to a standby now.
func (p *planner) asked(r Ring) bool {
	c := p.in.Command
	if c.Rotate != r.Name {
		return false
	}
	k := p.next.Key(c.To)
	return c.To == "" || (k != nil && k.isStandby())
}

// candidate is the standby to promote: a proven one, of the configured
// algorithm before another, or the one that was asked for. By force it may be
// one that is not proven.
func (p *planner) candidate(r Ring, asked bool) *Key {
	force := p.in.Command.Force && (asked || p.vacated(r.Name))
	var best *Key
	for _, k := range p.next.standbys(r.Name) {
		switch {
		// The half and the public key of what this plan adds are not stored yet.
		case p.base.Key(k.JWK.Kid) == nil || slices.Contains(p.in.Damaged, k.JWK.Kid):
		case asked && p.in.Command.To != "" && k.JWK.Kid != p.in.Command.To:
		case !p.proven(k) && !force:
		case best == nil, p.proven(k) && !p.proven(best), p.proven(k) == p.proven(best) && p.next.matches(k):
			best = k
		}
	}
	return best
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

// damaged tells of keys whose private halves are missing or wrong.
func (p *planner) damaged() {
	for _, kid := range p.in.Damaged {
		k := p.next.Key(kid)
		if k == nil || !k.Closed.IsZero() {
			continue
		}
		p.alarm(Alarm{Code: "half_damaged", Ring: k.Ring, Kid: kid, Message: fmt.Sprintf(
			"the private half of %s key %s is missing or does not match: it does not sign, and the ring goes on with its next key as soon as that is proven; find out who took or wrote it", k.State(p.in.Now), kid)})
	}
}

// adopted takes over keys of sets that keyturn did not write, and forgets those
// whose date has passed.
func (p *planner) adopted() {
	for _, t := range p.next.Config.Targets {
		if !p.in.Now.Before(t.AdoptUntil) {
			continue
		}
		for _, jwk := range p.in.Foreign[t.Name] {
			i := slices.IndexFunc(p.next.Adopted, func(a Adopted) bool { return a.JWK.Kid == jwk.Kid })
			switch {
			case p.next.Key(jwk.Kid) != nil:
			case i < 0:
				p.next.Adopted = append(p.next.Adopted, Adopted{JWK: jwk, Until: t.AdoptUntil.UTC()})
				p.event(KeyAdopted, "", jwk.Kid, t.Name)
			case p.next.Adopted[i].Until.Before(t.AdoptUntil):
				p.next.Adopted[i].Until = t.AdoptUntil.UTC()
				p.event(KeyAdopted, "", jwk.Kid, t.Name)
			}
		}
	}
	p.next.Adopted = slices.DeleteFunc(p.next.Adopted, func(a Adopted) bool {
		over := a.Revoked.IsZero() && !p.in.Now.Before(a.Until.Add(p.next.Lead(p.in.Now)))
		if over {
			p.event(KeyForgotten, "", a.JWK.Kid, "")
		}
		return over
	})
}
