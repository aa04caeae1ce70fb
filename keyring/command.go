package keyring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Command is what an operator asks of an issuer, beside its schedules. The zero
// Command asks for nothing. Outcome.Next shows it carried out, Outcome.Refused
// says why it is not.
type Command struct {
	// Rotate is the ring to rotate now; To names the key that is to sign, a
	// retired one that is not closed (a rollback) or the standby.
	Rotate, To string
	// Revoke are kids that must not be trusted any more; RevokeRing takes every
	// key of a ring.
	Revoke     []string
	RevokeRing string
	// Force lets a standby sign that is not proven: tokens may be refused by
	// consumers that do not know it yet.
	Force bool
}

func (c *Command) isZero() bool {
	return c.Rotate == "" && len(c.Revoke) == 0 && c.RevokeRing == ""
}

var (
	// ErrUnknownRing reports a ring that is not in force.
	ErrUnknownRing = errors.New("no such ring")
	// ErrUnknownKey reports a kid that the manifest does not name.
	ErrUnknownKey = errors.New("no such key")
	// ErrClosed reports a key that cannot sign again.
	ErrClosed = errors.New("the key is closed and never signs again")
)

// command carries out what an operator asked for. What it refuses changes
// nothing. A plain rotation is only checked here: rotate does it, with those that
// are due.
func (p *planner) command() {
	c := p.in.Command
	switch {
	case c.RevokeRing != "" || len(c.Revoke) > 0:
		p.revoke(c)
	case c.To != "":
		p.refuse(p.rollBack(c))
	case c.Rotate != "":
		if _, ok := p.next.Config.Ring(c.Rotate); !ok {
			p.refuse(fmt.Errorf("ring %q: %w", c.Rotate, ErrUnknownRing))
		} else if !p.founded() {
			p.refuse(&NotSafeYetError{Ring: c.Rotate})
		}
	}
}

// refuse keeps the first reason why a command is not carried out.
func (p *planner) refuse(err error) {
	if p.out.Refused == nil {
		p.out.Refused = err
	}
}

// rollBack lets a retired key sign again. It is in every set until it is
// closed, and its closing fails on the check-and-set where another replica
// records it at the same time.
func (p *planner) rollBack(c Command) error {
	ring, ok := p.next.Config.Ring(c.Rotate)
	if !ok {
		return fmt.Errorf("ring %q: %w", c.Rotate, ErrUnknownRing)
	}
	k := p.next.Key(c.To)
	switch {
	case k == nil || k.Ring != c.Rotate:
		return fmt.Errorf("ring %q has no key %q: %w", c.Rotate, c.To, ErrUnknownKey)
	case !k.Revoked.IsZero():
		return fmt.Errorf("key %s was revoked: %w", c.To, ErrClosed)
	case !k.Closed.IsZero():
		return fmt.Errorf("key %s: %w; a rollback is possible until sign_until and clock_skew have passed", c.To, ErrClosed)
	case k.isActive(), k.isStandby(): // done, or an ordinary rotation: rotate judges it
		return nil
	case k.Activated.IsZero():
		return fmt.Errorf("key %s: %w: it was dropped before it ever signed, and is being withdrawn; rotate without --to", c.To, ErrClosed)
	case !p.known(k) && !c.Force:
		return &NotSafeYetError{Ring: c.Rotate, Kid: c.To, SafeAt: p.next.SafeAt(k, p.in.Now), Waiting: p.next.WaitingFor(k)}
	case slices.Contains(p.in.Damaged, c.To):
		return fmt.Errorf("key %s: its private half is missing or damaged: %w", c.To, ErrNoKey)
	}
	if active := p.next.Active(c.Rotate); active != nil {
		p.retire(active, p.base.Lease) // the stored one: this plan's is not known to anybody yet
	}
	if !p.known(k) {
		k.Forced = p.in.Now
		p.event(KeyForced, k.Ring, k.JWK.Kid, "")
	}
	p.reinstate(k, ring)
	return nil
}

// reinstate makes a retired key the active one. Its tail is raised in the same
// write that lets anybody sign longer with it.
func (p *planner) reinstate(k *Key, r Ring) {
	k.Activated, k.Retired, k.SignUntil = p.in.Now, time.Time{}, time.Time{}
	k.MaxTTL, k.Tail = max(k.MaxTTL, r.MaxTokenTTL), max(k.Tail, Duration(p.next.Config.Timing().Tail))
	p.event(KeyReinstated, k.Ring, k.JWK.Kid, "")
}

// revoke takes keys out of the set at once and closes them in the same write.
// Who signs next is decided by succeed.
func (p *planner) revoke(c Command) {
	kids, err := p.condemned(c)
	if err != nil {
		p.refuse(err)
		return
	}
	for i := range p.next.Keys {
		k := &p.next.Keys[i]
		if !slices.Contains(kids, k.JWK.Kid) || !k.Revoked.IsZero() {
			continue
		}
		switch {
		case k.isActive(): // what a replica that is cut off may still do
			k.SignUntil = p.base.Lease
		case k.isStandby():
			k.SignUntil = p.in.Now
		}
		k.Revoked = p.in.Now
		if k.Closed.IsZero() {
			k.Closed = p.in.Now
		}
		p.event(KeyRevoked, k.Ring, k.JWK.Kid, "")
	}
	for i := range p.next.Adopted {
		a := &p.next.Adopted[i]
		if slices.Contains(kids, a.JWK.Kid) && a.Revoked.IsZero() {
			a.Revoked = p.in.Now
			p.event(KeyRevoked, "", a.JWK.Kid, "")
		}
	}
}

// condemned are the kids that a command revokes.
func (p *planner) condemned(c Command) ([]string, error) {
	var unknown []string
	for _, kid := range c.Revoke {
		adopted := slices.ContainsFunc(p.next.Adopted, func(a Adopted) bool { return a.JWK.Kid == kid })
		if p.next.Key(kid) == nil && !adopted {
			unknown = append(unknown, kid)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%s: %w; nothing was revoked", strings.Join(unknown, ", "), ErrUnknownKey)
	}
	kids := slices.Clone(c.Revoke)
	if c.RevokeRing == "" {
		return kids, nil
	}
	_, known := p.next.Config.Ring(c.RevokeRing)
	for i := range p.next.Keys {
		if k := &p.next.Keys[i]; k.Ring == c.RevokeRing {
			known = true
			if k.State(p.in.Now) != Withdrawn {
				kids = append(kids, k.JWK.Kid)
			}
		}
	}
	if !known {
		return nil, fmt.Errorf("ring %q: %w", c.RevokeRing, ErrUnknownRing)
	}
	return kids, nil
}

// succeed decides who signs for a ring whose active key this plan revokes: a
// proven standby was taken by rotate; else a retired key that is not closed, which
// every consumer has; else nobody until the standby is proven.
func (p *planner) succeed(r Ring) {
	if p.next.Active(r.Name) != nil || !p.vacated(r.Name) {
		return
	}
	var last *Key
	for i := range p.next.Keys {
		k := &p.next.Keys[i]
		usable := k.Ring == r.Name && !k.Activated.IsZero() && k.State(p.in.Now) == Retired && p.known(k) && !slices.Contains(p.in.Damaged, k.JWK.Kid)
		if usable && (last == nil || k.Retired.After(last.Retired)) {
			last = k
		}
	}
	if last != nil {
		p.reinstate(last, r)
	}
}

// known reports a key that every consumer knows: not one that was forced and
// whose lead has not passed.
func (p *planner) known(k *Key) bool { return k.Forced.IsZero() || p.proven(k) }

// vacated reports whether this plan revokes the active key of a ring.
func (p *planner) vacated(ring string) bool {
	before := p.base.Active(ring)
	return before != nil && !p.next.Key(before.JWK.Kid).Revoked.IsZero()
}
