package rotator

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simTokens are the tokens that consumers may still meet.
type simTokens struct {
	w *simWorld
	// end is when the last token of a kid expires for the slowest consumer.
	end map[string]time.Time
	alg map[string]keyring.Algorithm
	// last is by kid when its last token was signed, and by whom.
	last map[string]simSigned
	// safe is when the tokens of a forced key come within the promise.
	safe map[string]time.Time
	// gone and mute are revoked keys, with the true times at which nothing
	// serves them any more, and nobody signs with them.
	gone, mute map[string]time.Time
	// caches and leeways are those in force, for how long consumers use a copy.
	configs []simInForce
}

type simSigned struct {
	at time.Time
	by int
}

type simInForce struct {
	from time.Time
	c, l time.Duration
}

func (s *simTokens) init(w *simWorld) {
	*s = simTokens{w: w, end: map[string]time.Time{}, alg: map[string]keyring.Algorithm{}, last: map[string]simSigned{},
		safe: map[string]time.Time{}, gone: map[string]time.Time{}, mute: map[string]time.Time{}}
}

// cache is how old a copy may be that somebody uses at a time: the least
// consumer_cache that was in force lately. Whoever raises it lets consumers
// keep copies for longer only afterwards.
func (s *simTokens) cache(at time.Time) (c, leeway time.Duration) {
	c, leeway = time.Hour, time.Hour
	for i, f := range s.configs {
		if i+1 < len(s.configs) && s.configs[i+1].from.Before(at.Add(-200*time.Second)) {
			continue
		}
		c, leeway = min(c, f.c), min(leeway, f.l)
	}
	return c, leeway
}

// inForce notes a configuration that a commit puts in force.
func (s *simTokens) inForce(c *keyring.Config) {
	s.configs = append(s.configs, simInForce{s.w.now, time.Duration(c.ConsumerCache), time.Duration(c.Leeway)})
	if len(s.configs) > 8 {
		s.configs = s.configs[1:]
	}
}

// signAll lets every replica sign with every key that it may sign with.
func (w *simWorld) signAll() {
	for _, r := range w.replicas {
		w.load(r)
		if s := r.accepted; r.alive && s != nil {
			for _, ring := range simRings(s) {
				w.sign(r, s, ring)
			}
		}
	}
}

// simRings are the rings that a snapshot has keys of, sorted.
func simRings(s *keyring.Snapshot) []string {
	var out []string
	for i := range s.Keys {
		if n := s.Keys[i].Ring; !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// load fetches private halves ahead of their turn, as the signer does.
func (w *simWorld) load(r *simReplica) {
	s := r.accepted
	if !r.alive || s == nil || w.store.reachable(r) != nil || w.chance.one(4) {
		return
	}
	for i := range s.Keys {
		k := &s.Keys[i]
		if st := k.State(r.wall()); r.loaded[k.JWK.Kid] || (st != keyring.Active && st != keyring.Standby) {
			continue
		}
		if h, ok := w.store.halves[k.JWK.Kid]; ok && !h.damaged {
			r.loaded[k.JWK.Kid] = true
			delete(r.damaged, k.JWK.Kid)
		} else {
			r.damaged[k.JWK.Kid] = true
		}
	}
}

// sign makes a token as the signer does: one reading of the clock for iat, exp
// and the lease, and the lease again before it is released.
func (w *simWorld) sign(r *simReplica, s *keyring.Snapshot, ring string) bool {
	now := r.wall()
	for _, k := range s.Signers(ring, now, func(kid string) bool { return r.loaded[kid] }) {
		until := s.SignUntil(k)
		if !s.MaySign(until, now, r.rot.Clock("main").Late) {
			continue
		}
		w.tokens.signed(r, s, k, now.Add(time.Duration(k.MaxTTL)))
		return true
	}
	return false
}

func (s *simTokens) signed(r *simReplica, snap *keyring.Snapshot, k *keyring.Key, exp time.Time) {
	w, kid := s.w, k.JWK.Kid
	w.count.Tokens++
	s.last[kid] = simSigned{w.now, r.id}
	if !w.store.active[kid] {
		w.fail("I4", "replica %d signs with %s, which no committed manifest shows active", r.id, kid)
	}
	if until, ok := s.mute[kid]; ok && w.now.After(until) {
		w.fail("I8", "replica %d signs with %s, which was revoked and whose lease is over", r.id, kid)
	}
	if w.store.revoked[kid] > 0 {
		w.count.Exempt++
		return
	}
	if w.store.closed[kid] > 0 && !w.faults.lost {
		w.fail("I7", "replica %d signs with %s, which is closed", r.id, kid)
	}
	if !k.Forced.IsZero() && s.forced(snap, k) {
		w.count.Exempt++
		return
	}
	c, leeway := s.cache(w.now)
	end := exp.Add(min(leeway, time.Duration(snap.Config.Leeway)) + simE/2)
	s.alg[kid] = k.JWK.Alg
	if end.After(s.end[kid]) {
		s.end[kid] = end
	}
	from := w.now.Add(-c)
	for _, p := range w.places {
		if !p.target.View.Shows(k.JWK.Alg) {
			continue
		}
		for i := len(p.past) - 1; i >= 0 && p.past[i].to.After(from); i-- {
			if q := p.past[i]; q.kids != nil && !slices.Contains(q.kids, kid) {
				w.fail("I1", "replica %d signs with %s, and what %s of %d showed until %.3fs ago lacks it", r.id, kid, p.target.Name, p.by, w.now.Sub(q.to).Seconds())
			}
		}
	}
}

// forced reports a token of a forced key that is outside the promise: its lead
// has not passed since every place that consumers use has shown it.
func (s *simTokens) forced(snap *keyring.Snapshot, k *keyring.Key) bool {
	kid := k.JWK.Kid
	if at, ok := s.safe[kid]; ok {
		return s.w.now.Before(at)
	}
	for _, p := range s.w.places {
		n := len(p.past)
		if !p.used || n == 0 || p.past[n-1].kids == nil || !p.target.View.Shows(k.JWK.Alg) {
			continue
		}
		if !slices.Contains(p.past[n-1].kids, kid) {
			return true
		}
	}
	s.safe[kid] = s.w.now.Add(snap.Lead(s.w.now) + 3*simC)
	return true
}

// check is I1 for what can be fetched from now on.
func (s *simTokens) check(p *simPlace, q simSpan) {
	for kid, end := range s.end {
		switch {
		case !end.After(q.from):
			delete(s.end, kid)
		case s.w.store.revoked[kid] > 0:
			delete(s.end, kid)
		case p.target.View.Shows(s.alg[kid]) && !slices.Contains(q.kids, kid):
			s.w.fail("I1", "%s of %d shows no %s from %.3fs on, whose tokens live for another %.3fs (last signed %.3fs ago by %d)", p.target.Name, p.by, kid,
				q.from.Sub(simEpoch).Seconds(), end.Sub(q.from).Seconds(), s.w.now.Sub(s.last[kid].at).Seconds(), s.last[kid].by)
		}
	}
}

// checkRevoked is I8 for what replicas serve themselves.
func (s *simTokens) checkRevoked(p *simPlace, q simSpan) {
	if p.by == simShared {
		return
	}
	for _, kid := range q.kids {
		if end, ok := s.gone[kid]; ok && q.from.After(end) {
			s.w.fail("I8", "%s of %d shows %s %.3fs after nothing should", p.target.Name, p.by, kid, q.from.Sub(end).Seconds())
		}
	}
}
