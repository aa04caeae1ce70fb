package rotator

import (
	"slices"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simPlace is what consumers can fetch: a target of one replica, or what all share.
type simPlace struct {
	w      *simWorld
	by     int // the replica, simShared for none
	target keyring.Target

	held keyring.Held
	snap *keyring.Snapshot // nil where nothing stands there
	// kids are what stands there where it is not rendered with every request:
	// a file on a host that is dead, a bucket.
	kids  []string
	until time.Time // true time at which a dead host is out of service
	fresh time.Time // true time at which the store was read that the set stems from
	// ready says that this process has brought it up to date.
	ready bool
	// used says that consumers have come to depend on it: it has shown
	// everything once since it became required.
	used bool
	// high is the highest generation that ever stood there.
	high uint64
	past []simSpan

	// The last rendering.
	rendered     *keyring.Snapshot
	renderedKids []string
	renderedAt   time.Time
	renderedTill time.Time
}

// simSpan is what could be fetched in a span of true time.
type simSpan struct {
	from, to time.Time
	kids     []string // nil where nothing could be fetched
	snap     *keyring.Snapshot
}

func (w *simWorld) buildPlaces() {
	seen := map[string]bool{}
	for _, f := range w.files {
		for _, t := range f.Targets {
			if seen[t.Name] {
				continue
			}
			seen[t.Name] = true
			if !t.SelfServed() {
				w.places = append(w.places, &simPlace{w: w, by: simShared, target: t})
				continue
			}
			for _, r := range w.replicas {
				if r.publishes {
					w.places = append(w.places, &simPlace{w: w, by: r.id, target: t})
				}
			}
		}
	}
}

// publish brings what one replica has accepted to its targets and to the
// shared ones, and reads all of them back.
func (w *simWorld) publish(r *simReplica) {
	if !r.alive || !r.publishes {
		if r.alive {
			w.readShared(r)
		}
		return
	}
	for _, p := range w.places {
		if p.by != r.id && p.by != simShared {
			continue
		}
		if p.target.Kind == keyring.TargetConfirm {
			continue
		}
		if !r.lag && !w.refuses(p) {
			p.take(r)
		}
		if p.by == r.id {
			p.readBack(r)
		}
	}
	w.readShared(r)
}

// refuses: the target held a set that keyturn did not write and that it may
// not take over yet.
func (w *simWorld) refuses(p *simPlace) bool {
	s := w.store.truth
	return len(w.adopted) > 0 && p.held.Lineage == "" && (s == nil || len(s.Adopted) == 0)
}

func (w *simWorld) readShared(r *simReplica) {
	for _, p := range w.places {
		if p.by == simShared && !r.lag {
			p.readBack(r)
		}
	}
}

// take gives a place the snapshot that a replica acts on, if it yields.
func (p *simPlace) take(r *simReplica) {
	s := r.accepted
	if s == nil || !s.Servable() {
		return
	}
	clock := r.rot.Clock("main")
	hold := s.Hold(r.wallOf(r.readAt))
	if p.by != simShared && hold.Expired(clock.Late) {
		return
	}
	if !p.held.Yields(s) {
		return
	}
	if p.held.Lineage == s.Lineage && s.Generation < p.high {
		p.w.fail("I9", "generation %d replaces %d at %s of replica %d", s.Generation, p.high, p.target.Name, p.by)
	}
	if p.held.Lineage != "" && p.held.Lineage != s.Lineage {
		p.w.fail("I9", "lineage %s replaces %s at %s", s.Lineage, p.held.Lineage, p.target.Name)
	}
	p.ready = true
	p.held, p.snap, p.high, p.fresh = hold, s, s.Generation, r.readAt
	kids, _ := p.render(clock.Early)
	p.kids = kids
}

// wallOf is what the replica's clock showed at a true time.
func (r *simReplica) wallOf(t time.Time) time.Time { return t.Add(r.offset + r.jump) }

// readBack notes what a replica saw when it fetched a place as a consumer does.
func (p *simPlace) readBack(r *simReplica) {
	kids, ok := p.fetch()
	if !ok {
		return
	}
	if s := r.accepted; s != nil { // what the view leaves out keeps nobody waiting
		for i := range s.Keys {
			if k := &s.Keys[i].JWK; !p.target.View.Shows(k.Alg) && !slices.Contains(kids, k.Kid) {
				kids = append(slices.Clone(kids), k.Kid)
			}
		}
	}
	if p.by == r.id { // it stands there still
		p.held = p.snap.Hold(r.wallOf(r.readAt))
	}
	r.observed[p.target.Name] = keyring.Observation{At: r.wall(), Kids: kids}
}

// fetch is what a consumer gets at this instant.
func (p *simPlace) fetch() ([]string, bool) {
	kids, _ := p.at(p.w.now)
	return kids, kids != nil
}

// pull brings a shared confirm URL, a cache in front of the bucket, up to date.
func (w *simWorld) pull() {
	var bucket *simPlace
	for _, p := range w.places {
		if p.target.Kind == keyring.TargetBucket {
			bucket = p
		}
	}
	for _, p := range w.places {
		if p.target.Kind == keyring.TargetConfirm && bucket != nil && bucket.snap != nil {
			p.held, p.snap, p.kids = bucket.held, bucket.snap, bucket.kids
		}
	}
}

// at is what can be fetched at a true time from now on, and until when that
// stays so if nobody does anything. Zero is for ever.
func (p *simPlace) at(t time.Time) ([]string, time.Time) {
	if p.snap == nil {
		return nil, time.Time{}
	}
	if p.by == simShared {
		return p.kids, time.Time{}
	}
	r := p.w.replicas[p.by]
	if !r.alive || !p.ready { // a process that has not published yet is not ready, says its health
		if p.target.Kind != keyring.TargetFile || !t.Before(p.until) {
			return nil, time.Time{}
		}
		return p.kids, p.until
	}
	clock := r.rot.Clock("main")
	ahead := t.Sub(p.w.now)
	late, early := clock.Late.Add(ahead), clock.Early.Add(ahead)
	if p.target.Kind == keyring.TargetFile && clock.Doubt { // the boot clock is the one to trust
		late = clock.Boot.Add(ahead)
	}
	if p.held.Expired(late) {
		return nil, time.Time{}
	}
	kids, change := p.render(early)
	end := t.Add(p.held.ServeUntil.Sub(late))
	if !change.IsZero() {
		if at := t.Add(change.Sub(early)); end.IsZero() || at.Before(end) {
			end = at
		}
	}
	return kids, end
}

// render is keyring.Set, which is asked again only where it may say something else.
func (p *simPlace) render(early time.Time) ([]string, time.Time) {
	s := p.snap
	fresh := p.rendered == s && !early.Before(p.renderedAt) && (p.renderedTill.IsZero() || early.Before(p.renderedTill))
	if !fresh {
		set, err := keyring.Set(s, early, p.target.View)
		if err != nil {
			p.w.fail("set", "%v", err)
		}
		p.rendered, p.renderedAt, p.renderedTill = s, early, set.Changes
		if !slices.Equal(p.renderedKids, set.Kids) || p.renderedKids == nil {
			p.renderedKids = set.Kids
		}
	}
	return p.renderedKids, p.renderedTill
}

// advance lets true time pass, notes what can be fetched meanwhile, and holds
// it against the tokens that are about.
func (w *simWorld) advance(d time.Duration) {
	to := w.now.Add(d)
	for _, p := range w.places {
		for t := w.now; t.Before(to); {
			kids, end := p.at(t)
			if end.IsZero() || end.After(to) {
				end = to
			}
			if !end.After(t) {
				end = t.Add(time.Millisecond)
			}
			p.note(simSpan{t, end, kids, p.snap})
			t = end
		}
	}
	w.now = to
}

// note records a span and checks I1 and I8 in it.
func (p *simPlace) note(s simSpan) {
	w := p.w
	if s.kids == nil || !p.inUse(s.kids) {
		s.kids = nil
	}
	if n := len(p.past); n > 0 && p.past[n-1].to.Equal(s.from) && slices.Equal(p.past[n-1].kids, s.kids) && (p.past[n-1].kids == nil) == (s.kids == nil) {
		p.past[n-1].to = s.to
	} else {
		p.past = append(p.past, s)
		if old := s.from.Add(-400 * time.Second); len(p.past) > 64 && p.past[0].to.Before(old) {
			p.past = slices.DeleteFunc(p.past, func(q simSpan) bool { return q.to.Before(old) })
		}
	}
	if s.kids != nil {
		p.checkAdopted(s)
		w.tokens.check(p, s)
		w.tokens.checkRevoked(p, s)
	}
}

// checkAdopted: the keys of the set that stood there before stay until their
// date, but for a revocation.
func (p *simPlace) checkAdopted(s simSpan) {
	w := p.w
	for _, jwk := range w.adopted {
		if !p.target.View.Shows(jwk.Alg) || p.snap == nil || s.to.After(w.adoptUntil.Add(-simE)) || slices.Contains(s.kids, jwk.Kid) {
			continue
		}
		for _, a := range w.store.truth.Adopted {
			if a.JWK.Kid == jwk.Kid && a.Revoked.IsZero() {
				w.fail("I1", "%s of %d lost the adopted key %s before its date", p.target.Name, p.by, jwk.Kid)
			}
		}
	}
}

// inUse: consumers depend on a place from when it has shown everything, once
// it is required, and until it is not.
func (p *simPlace) inUse(kids []string) bool {
	s := p.w.store.truth
	required := false
	if s != nil {
		for _, t := range s.Config.Targets {
			required = required || (t.Name == p.target.Name && t.Required)
		}
	}
	switch {
	case !required:
		p.used = false
	case !p.used:
		p.used = true
		for i := range s.Keys {
			k := &s.Keys[i]
			if k.InSet(p.w.now.Add(simE)) && p.target.View.Shows(k.JWK.Alg) && !slices.Contains(kids, k.JWK.Kid) {
				p.used = false
			}
		}
	}
	return p.used
}

// died is what the death of a process does to what it served.
func (w *simWorld) died(r *simReplica) {
	for _, p := range w.places {
		if p.by != r.id || p.snap == nil {
			continue
		}
		kids, _ := p.at(w.now)
		p.ready = false
		if p.target.Kind == keyring.TargetHTTP {
			p.snap, p.held = nil, keyring.Held{}
			continue
		}
		// The file stays. The host's health check takes it out of service
		// within S of the last time that the store was read and the file was
		// as it said.
		timing := p.snap.Config.Timing()
		p.kids = kids
		p.until = p.fresh.Add(timing.S)
	}
}
