package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// keyFacts are what a manifest says of a key once and for all.
type keyFacts struct {
	ring                              string
	activated, retired, until, closed time.Time
}

// facts goes through all manifests: what may never be in one (I3, I5), who may
// have signed (I4), and how long standbys waited.
func (c *chaos) facts(chain []manifestVersion) {
	known := map[string]keyFacts{}
	var lease time.Time
	for _, m := range chain {
		if m.Lease.Before(lease) {
			c.ledger.fail("lease", "generation %d shortens it from %s to %s", m.Generation, lease, m.Lease)
		}
		lease = m.Lease
		roles := map[string]int{}
		for _, k := range m.Keys {
			switch {
			case k.Activated.IsZero() && k.Retired.IsZero():
				roles[k.Ring+" standby"]++
			case k.Retired.IsZero():
				roles[k.Ring+" active"]++
			}
			now, before := keyFacts{k.Ring, k.Activated, k.Retired, k.SignUntil, k.Closed}, known[k.JWK.Kid]
			known[k.JWK.Kid] = now
			c.unchanged(m.Generation, k.JWK.Kid, before, now)
			if before.activated.IsZero() && !now.activated.IsZero() {
				c.ledger.count("rotations of ring " + k.Ring)
				c.ledger.most("longest wait of a standby, in ms", now.activated.Sub(k.Created))
			}
		}
		for role, n := range roles {
			if n > 1 {
				c.ledger.fail("roles", "generation %d: %d keys are %s", m.Generation, n, role)
			}
		}
	}
	newest := chain[len(chain)-1]
	for _, ring := range c.replicas[0].now().rings() {
		if a, s := newest.count(ring); a != 1 || s != 1 {
			c.ledger.fail("roles", "at the end ring %s has %d active and %d standby keys", ring, a, s)
		}
	}
	c.signatures(known, newest.Lease)
}

// unchanged: what has happened to a key is never told otherwise.
func (c *chaos) unchanged(generation uint64, kid string, before, now keyFacts) {
	for what, times := range map[string][2]time.Time{
		"activated": {before.activated, now.activated}, "retired": {before.retired, now.retired},
		"sign_until": {before.until, now.until}, "closed": {before.closed, now.closed},
	} {
		if then := times[0]; !then.IsZero() && !then.Equal(times[1]) {
			c.ledger.fail("fact", "generation %d: %s of %s was %s and is %s", generation, what, kid, then, times[1])
		}
	}
}

// signatures: each token is of a key that was active when it was asked for, or
// may have been where the rotation was not known yet.
func (c *chaos) signatures(known map[string]keyFacts, lease time.Time) {
	for _, tok := range c.tokens {
		f, named := known[tok.kid]
		until := f.until // of an active key the issuer's lease
		if f.retired.IsZero() {
			until = lease
		}
		switch {
		case !named || f.activated.IsZero() || f.ring != tok.ring:
			c.ledger.fail("signature", "%s: no manifest shows its key active in that ring", tok)
		case tok.got.Before(f.activated):
			c.ledger.fail("signature", "%s: its key became active at %s", tok, f.activated)
		case tok.asked.After(until):
			c.ledger.fail("signature", "%s: its key was to sign until %s", tok, until)
		}
	}
}

// count is how many keys of a ring sign and stand by.
func (m manifestVersion) count(ring string) (active, standby int) {
	for _, k := range m.Keys {
		switch {
		case k.Ring != ring || !k.Retired.IsZero():
		case k.Activated.IsZero():
			standby++
		default:
			active++
		}
	}
	return active, standby
}

// published compares every set that was seen anywhere with the manifest of the
// generation that it said it was: its keys, and none that may be missing but
// for its age.
func (c *chaos) published(chain []manifestVersion) {
	for generation, sets := range c.places[0].sets.shown {
		at := slices.IndexFunc(chain, func(m manifestVersion) bool { return m.Generation == generation })
		if at < 0 {
			c.ledger.fail("published", "generation %d was never stored", generation)
			continue
		}
		for _, seen := range sets {
			c.ledger.count("published sets compared with their manifests")
			if wrong := chain[at].differs(seen); wrong != "" {
				c.ledger.fail("published", "%s, generation %d: %s", seen.place, generation, wrong)
			}
		}
	}
}

// differs says in what a set is not the manifest's.
func (m manifestVersion) differs(seen *showing) string {
	var wrong []string
	for _, kid := range seen.set.kids {
		if !slices.ContainsFunc(m.Keys, func(k manifestKey) bool { return k.JWK.Kid == kid }) {
			wrong = append(wrong, fmt.Sprintf("%s is not in the manifest", kid))
		}
	}
	for _, k := range m.Keys {
		_, shown := slices.BinarySearch(seen.set.kids, k.JWK.Kid)
		withdrawn := !k.Closed.IsZero() && !seen.first.Before(k.SignUntil.Add(time.Duration(k.Tail)))
		if !shown && !withdrawn {
			wrong = append(wrong, fmt.Sprintf("%s is missing", k.JWK.Kid))
		}
	}
	return strings.Join(wrong, ", ")
}
