package keys

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// Views are what requests see of all issuers, by name: one reading to sign by,
// and the newest when what was signed is released. They are immutable.
type Views map[string]*View

// View is an issuer as requests see it. It is immutable.
type View struct {
	Issuer   string
	Snapshot *keyring.Snapshot // nil before the first Accept
	late     func() time.Time
	rings    map[string]ringView
	failed   map[string]failure
}

// ringView is who may sign for a ring.
type ringView struct {
	// active is nil where nobody may sign.
	active *keyring.Key
	// keys are the loaded ones that may sign, best first: the active one, or,
	// while it is not loaded, those that were active before it.
	keys []Key
}

// Key is a loaded key and the bounds under which it signs.
type Key struct {
	*token.Signer
	Until  time.Time // the lease: sign_until
	MaxTTL int64     // of a token, in seconds
}

// ring chooses who signs, of the halves in memory (keyring.Snapshot.Signers).
func (is *issuer) ring(ring string, now time.Time) ringView {
	v := ringView{active: is.snap.Active(ring)}
	for _, k := range is.snap.Signers(ring, now, func(kid string) bool { return is.loaded[kid] != nil }) {
		v.keys = append(v.keys, Key{
			Signer: is.loaded[k.JWK.Kid], Until: is.snap.SignUntil(k), MaxTTL: int64(time.Duration(k.MaxTTL) / time.Second),
		})
	}
	return v
}

// Algorithm is the one that a ring's tokens have now, "" where nobody knows yet.
func (v *View) Algorithm(ring string) string {
	if v == nil || v.Snapshot == nil {
		return ""
	}
	if r := v.rings[ring]; len(r.keys) > 0 {
		return r.keys[0].Alg()
	} else if r.active != nil {
		return string(r.active.JWK.Alg)
	}
	r, _ := v.Snapshot.Config.Ring(ring)
	return string(r.Algorithm)
}

// Pick is the key that signs for a ring at a time that was read just now. Where
// there is none it says why: unavailable, no_active_key or signing_lapsed. A nil
// View is of an issuer that nobody knows.
func (v *View) Pick(ring string, now time.Time) (Key, *api.Problem) {
	if v == nil || v.Snapshot == nil {
		return Key{}, api.NewProblem(api.Unavailable, "the issuer's manifest has not been read yet; /readyz/signer says why")
	}
	r := v.rings[ring]
	if r.active == nil {
		return Key{}, api.NewProblem(api.NoActiveKey, v.whyNoKey(ring, now))
	}
	if len(r.keys) == 0 {
		return Key{}, api.NewProblem(api.Unavailable, fmt.Sprintf("the active key %q of ring %q is not loaded yet; /readyz/signer says why", r.active.JWK.Kid, ring))
	}
	var prob *api.Problem
	late := v.late()
	for _, key := range r.keys {
		if prob = v.lapsed(key.Until, now, late); prob == nil {
			return key, nil
		}
	}
	return Key{}, prob
}

func (v *View) whyNoKey(ring string, now time.Time) string {
	if _, ok := v.Snapshot.Config.Ring(ring); !ok {
		return fmt.Sprintf("ring %q is not in the configuration in force (revision %d of issuer %q)", ring, v.Snapshot.Config.Revision, v.Issuer)
	}
	next := v.Snapshot.Standby(ring)
	if next == nil {
		return fmt.Sprintf("ring %q has no key yet; the rotator makes one", ring)
	}
	if waiting := v.Snapshot.WaitingFor(next); len(waiting) > 0 {
		return fmt.Sprintf("the first key of ring %q has not been read back at %s yet", ring, keyring.Quoted(waiting))
	}
	return fmt.Sprintf("the next key of ring %q may sign from %s on, when every consumer knows it", ring, stamp(v.Snapshot.SafeAt(next, now).Add(time.Second-time.Nanosecond))) // rounded up
}

// lapsed says why a key with this lease may not sign at a time.
func (v *View) lapsed(until, now, late time.Time) *api.Problem {
	switch {
	case v.Snapshot.MaySign(until, now, late):
		return nil
	case !now.Before(until):
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("the signing lease of issuer %q ended at %s; it is renewed as soon as the manifest can be written again", v.Issuer, stamp(until)))
	case !late.Before(until):
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("clock fault: the signing lease of issuer %q ended at %s, and it is %s by this host's boot clock, which nobody can set back; check NTP on this host",
			v.Issuer, stamp(until), stamp(late)))
	default:
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("clock fault: the signing lease of issuer %q ends at %s, and a replica with a right clock would not have set it so far beyond %s, the time here; check NTP on this host and on those that write the manifest",
			v.Issuer, stamp(v.Snapshot.Lease), stamp(now)))
	}
}

// withdrawn says why tokens of a key are not released that was picked from an
// earlier view, with a lease: it may sign no longer, or for a shorter time, and
// whoever made it so counts on that no more of them appear.
func (v *View) withdrawn(kid string, until, now time.Time) *api.Problem {
	k := v.Snapshot.Key(kid)
	if k == nil {
		return api.NewProblem(api.NoActiveKey, fmt.Sprintf("the key %q is in the manifest no longer: it left while the token was being made; ask again", kid))
	}
	switch state := k.State(now); {
	case state == keyring.Revoked, state == keyring.Closed, state == keyring.Withdrawn:
		return api.NewProblem(api.NoActiveKey, fmt.Sprintf("the key %q is %s: it became so while the token was being made; ask again", kid, state))
	case v.Snapshot.SignUntil(k).Before(until):
		return api.NewProblem(api.SigningLapsed, fmt.Sprintf("the signing lease of key %q was shortened while the token was being made; ask again", kid))
	}
	return nil
}

// Moment is one reading of the clocks, and of the issuers as they are now, for
// several tokens.
type Moment struct {
	now   time.Time
	views Views
	view  *View
	late  time.Time // by the clocks of that view's issuer
}

// At begins a moment with the wall clock as it was read.
func (h *Holder) At(now time.Time) Moment { return Moment{now: now, views: h.Views()} }

// Lapsed says why a token may not be released at this moment that a key signed
// until a lease, both as an earlier view had them: signing_lapsed,
// no_active_key, or nil. What has been accepted since counts, a revocation above all.
func (m *Moment) Lapsed(v *View, kid string, until time.Time) *api.Problem {
	present := m.views[v.Issuer]
	if m.view != present {
		m.view, m.late = present, present.late()
	}
	if present.Snapshot != v.Snapshot {
		if prob := present.withdrawn(kid, until, m.now); prob != nil {
			return prob
		}
	}
	return present.lapsed(until, m.now, m.late)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
