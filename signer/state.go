package signer

import (
	"maps"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// state is what a request sees from its beginning to its end. It is immutable.
type state struct {
	profiles map[string]*profile
	issuers  map[string]*view
}

// issuer is what is known of an issuer; Signer.mu guards it.
type issuer struct {
	name string
	late func() time.Time
	snap *keyring.Snapshot // nil before the first Accept
	// loaded and failed hold the halves, or why there is none, by kid.
	loaded map[string]*token.Signer
	failed map[string]failure
	// view is made of the above, anew after each change.
	view *view
}

// failure is why a private half is not in memory.
type failure struct {
	err   error
	since time.Time
	next  time.Time // not tried again before
}

func (s *Signer) newIssuer(name string) *issuer {
	is := &issuer{
		name: name, late: func() time.Time { return s.late(name) },
		loaded: map[string]*token.Signer{}, failed: map[string]failure{},
	}
	is.view = &view{name: name, late: is.late}
	return is
}

// view is an issuer as requests see it.
type view struct {
	name   string
	late   func() time.Time
	snap   *keyring.Snapshot // nil before the first Accept
	rings  map[string]ringView
	failed map[string]failure
}

// ringView is who may sign for a ring.
type ringView struct {
	// active is nil where nobody may sign.
	active *keyring.Key
	// keys are the loaded ones that may sign, best first: the active one, or,
	// while it is not loaded, those that were active before it.
	keys []signingKey
}

// signingKey is a loaded key and the bounds under which it signs.
type signingKey struct {
	*token.Signer
	until  time.Time // the lease: sign_until
	maxTTL int64     // seconds
}

// Accept takes a snapshot of an issuer. It never blocks on I/O: keys that it
// names and that are not in memory yet are loaded by Run. A snapshot of a lower generation than one
// already seen, or of another lineage, is dropped (design: never act below a
// generation that was seen).
func (s *Signer) Accept(issuer string, snap *keyring.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.issuers[issuer]
	if is == nil {
		is = s.newIssuer(issuer)
		s.issuers[issuer] = is
	}
	if old := is.snap; old != nil {
		switch {
		case old.Lineage != snap.Lineage:
			s.log.Error("dropped a snapshot of another lineage", "issuer", issuer, "lineage", snap.Lineage, "seen", old.Lineage)
			return
		case snap.Generation < old.Generation:
			s.log.Warn("dropped an older snapshot", "issuer", issuer, "generation", snap.Generation, "seen", old.Generation)
			return
		case snap.Generation > old.Generation:
			clear(s.paused) // the store has answered: it is worth another try
		}
	}
	is.snap = snap
	s.rebuild(is, time.Now())
	s.publish()
	s.tellRun()
}

// tellRun says that there may be keys to load.
func (s *Signer) tellRun() {
	select {
	case s.wake <- struct{}{}:
	default: // it knows
	}
}

// rebuild drops what may no longer be in memory and makes the view of an
// issuer. The caller holds mu.
func (s *Signer) rebuild(is *issuer, now time.Time) {
	for kid := range is.loaded {
		if k := is.snap.Key(kid); k == nil || !mayHold(k, now) {
			delete(is.loaded, kid)
			s.log.Info("dropped private half", "issuer", is.name, "kid", kid)
		}
	}
	for kid := range is.failed {
		if k := is.snap.Key(kid); k == nil || !is.wants(k, now) {
			delete(is.failed, kid)
		}
	}
	v := &view{name: is.name, late: is.late, snap: is.snap, rings: map[string]ringView{}, failed: maps.Clone(is.failed)}
	for i := range is.snap.Keys {
		ring := is.snap.Keys[i].Ring
		if _, done := v.rings[ring]; !done {
			v.rings[ring] = is.ring(ring, now)
		}
	}
	for _, r := range is.snap.Config.Rings {
		if _, done := v.rings[r.Name]; !done {
			v.rings[r.Name] = ringView{}
		}
	}
	is.view = v
}

// ring chooses who signs, of the halves in memory (keyring.Snapshot.Signers).
func (is *issuer) ring(ring string, now time.Time) ringView {
	v := ringView{active: is.snap.Active(ring)}
	for _, k := range is.snap.Signers(ring, now, func(kid string) bool { return is.loaded[kid] != nil }) {
		v.keys = append(v.keys, signingKey{
			Signer: is.loaded[k.JWK.Kid], until: is.snap.SignUntil(k), maxTTL: int64(time.Duration(k.MaxTTL) / time.Second),
		})
	}
	return v
}

// publish shows the present to the requests. The caller holds mu.
func (s *Signer) publish() {
	next := &state{profiles: s.profiles, issuers: make(map[string]*view, len(s.issuers))}
	for name, is := range s.issuers {
		next.issuers[name] = is.view
	}
	s.state.Store(next)
}

// wanted reports whether a half is to be loaded: the active key's and those
// that may become active.
func wanted(k *keyring.Key, now time.Time) bool {
	st := k.State(now)
	return st == keyring.Active || st == keyring.Standby
}

// wants is wanted, and a retired key that steps in, or whose half was found
// damaged: that is looked for again, since a rollback must not choose it before
// it is whole.
func (is *issuer) wants(k *keyring.Key, now time.Time) bool {
	return wanted(k, now) || mayHold(k, now) && (is.damaged(k.JWK.Kid) || is.stepsIn(k))
}

// stepsIn reports whether a retired key signs on, within its lease, for an
// active one whose half is gone or wrong (keyring.Snapshot.Signers). Who was
// there at the rotation has its half; who starts later loads it.
func (is *issuer) stepsIn(k *keyring.Key) bool {
	active := is.snap.Active(k.Ring)
	return active != nil && !k.Activated.IsZero() && is.damaged(active.JWK.Kid)
}

func (is *issuer) damaged(kid string) bool {
	f, failed := is.failed[kid]
	return failed && isDamaged(f.err)
}

// mayHold reports whether a half may stay in memory: a retired key's does
// until its sign_until, since it may have to step in.
func mayHold(k *keyring.Key, now time.Time) bool {
	return wanted(k, now) || k.State(now) == keyring.Retired && now.Before(k.SignUntil)
}
