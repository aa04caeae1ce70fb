package rotator

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// The simulator is a small world around the shipped loop and the shipped
// keyring: one goroutine, one source of chance, time that moves only when the
// scheduler says so. docs/safety.md describes it. It has no rule of its own
// about a key's life: what replicas store, serve and sign is what keyring and
// rotator say, and what is checked is what consumers see.

// Times of the simulated world. They are large against a second, which is the
// resolution of the store's clock.
const (
	simE      = 20 * time.Second // any two sound clocks differ by no more
	simC      = 40 * time.Second
	simLambda = 10 * time.Second
	simSync   = 20 * time.Second
	simPeriod = 600 * time.Second
	// simShared is the place of what all replicas share.
	simShared = -1
)

var simEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// violation is a broken invariant; it ends the walk.
type violation struct {
	invariant, text string
}

func (v *violation) Error() string { return v.invariant + ": " + v.text }

// simWorld is everything outside of the replicas' processes.
type simWorld struct {
	chance *simChance
	keys   *simKeys
	now    time.Time // true time
	store  simStore
	// storeOffset is the store's clock less the true time.
	storeOffset time.Duration
	replicas    []*simReplica
	files       []keyring.Config // the revisions of the file, in order
	places      []*simPlace
	tokens      simTokens
	faults      simFaults
	adopted     []keyring.JWK // foreign keys that a target held before
	adoptUntil  time.Time
	climate     simClimate
	count       simCount
	story       []string // what happened, for a failing walk
	tell        bool
	healing     bool
	insist      bool // keyturn accept is to be forced
	decodes     bool // reads back what is stored, as it was written
	healed      time.Time
	stirred     time.Time // when keys or the configuration changed last
}

// simCount tells what a walk was made of.
type simCount struct {
	Steps, Ticks, Crashes, Tokens, Exempt, Commits, Rotations, Rollbacks, Revocations, Freezes, Accepts int
	Faults                                                                                              map[string]int
}

func (w *simWorld) fail(invariant, format string, args ...any) {
	w.dump()
	panic(&violation{invariant, fmt.Sprintf(format, args...)})
}

// dump adds to the story how things stand.
func (w *simWorld) dump() {
	if s := w.store.truth; s != nil {
		w.log("in force: generation %d, lease %s, lead %s, longest span %s", s.Generation, s.Lease.Sub(simEpoch), s.Lead(w.now), s.Config.Timing().S)
		for i := range s.Keys {
			k := &s.Keys[i]
			w.log("   %s %s %s created %s activated %s retired %s until %s closed %s tail %s", k.Ring, k.JWK.Kid[:6], k.State(w.now),
				k.Created.Sub(simEpoch), k.Activated.Sub(simEpoch), k.Retired.Sub(simEpoch), k.SignUntil.Sub(simEpoch), k.Closed.Sub(simEpoch), time.Duration(k.Tail))
		}
	}
	for _, r := range w.replicas {
		w.log("replica %d: alive %v, cut %v, lag %v, clock %+v %+v, seen %d, read at %s, tick %v", r.id, r.alive, r.cut, r.lag, r.offset, r.jump, r.seen, r.readAt.Sub(simEpoch), r.tick != nil)
		if r.alive && r.accepted != nil {
			c := r.rot.Clock("main")
			w.log("   accepted %d, early %s, late %s, doubt %v", r.accepted.Generation, c.Early.Sub(simEpoch), c.Late.Sub(simEpoch), c.Doubt)
		}
	}
	for _, p := range w.places {
		w.log("%s of %d: used %v, holds %d until %s (fresh %s, dead until %s): %.6v", p.target.Name, p.by, p.used, p.held.Generation, p.held.ServeUntil.Sub(simEpoch), p.fresh.Sub(simEpoch), p.until.Sub(simEpoch), p.kids)
	}
}

// log tells the story of a walk, for whoever replays it.
func (w *simWorld) log(format string, args ...any) {
	if w.tell {
		w.story = append(w.story, fmt.Sprintf("%8.3fs  ", w.now.Sub(simEpoch).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (w *simWorld) fault(kind string) { w.count.Faults[kind]++ }

// simChance is where all chance comes from: a seeded source in a walk, the
// next branch in an exhaustive search.
type simChance struct {
	rng    *rand.Rand
	branch func(n int) int
	seeds  uint64
}

// seed is for what must differ between replicas and decides nothing.
func (c *simChance) seed() uint64 {
	c.seeds++
	return c.seeds
}

// pick is a number below n.
func (c *simChance) pick(n int) int {
	if c.branch != nil {
		return c.branch(n)
	}
	return c.rng.IntN(n)
}

// one reports true once in n times.
func (c *simChance) one(n int) bool { return c.pick(n) == 0 }

func (c *simChance) duration(least, most time.Duration) time.Duration {
	ms := int((most - least) / time.Millisecond)
	if ms <= 0 {
		return least
	}
	return least + time.Duration(c.pick(ms+1))*time.Millisecond
}

func simPick[T any](c *simChance, of ...T) T { return of[c.pick(len(of))] }

// simFaults are the faults that stand now.
type simFaults struct {
	storeDown   bool
	storeSealed bool
	schema      bool // a newer keyturn has written
	// disturbed says that somebody tampered with the manifest: a freeze has a reason.
	disturbed bool
	since     time.Time
	// lost says that marks were lost or given up, so that the newest of what was
	// committed may be forgotten.
	lost bool
}

// draw makes a world by chance.
func (w *simWorld) draw(chance *simChance, keys *simKeys, climate simClimate, tell bool) {
	*w = simWorld{chance: chance, keys: keys, now: simEpoch, climate: climate, tell: tell, count: simCount{Faults: map[string]int{}}}
	w.store.init(w)
	w.decodes = chance.one(4)
	w.tokens.init(w)
	w.storeOffset = w.offset()
	w.drawFiles()
	replicas := 3
	if w.files[0].SingleProcess {
		replicas = 1
	}
	for i := range replicas {
		r := newSimReplica(w, i)
		w.replicas = append(w.replicas, r)
	}
	w.drawRoles()
	w.buildPlaces()
	for _, r := range w.replicas {
		if !w.climate.lateReplica || r.id < 2 {
			r.start()
		}
	}
}

// offset is a sound clock's, often as far off as it may be.
func (w *simWorld) offset() time.Duration {
	return simPick(w.chance, -simE/2, 0, simE/2, w.chance.duration(-simE/2, simE/2))
}

// drawRoles makes some worlds where the roles run apart.
func (w *simWorld) drawRoles() {
	if !w.climate.rolesApart || len(w.replicas) < 3 {
		return
	}
	shared := true
	for _, f := range w.files {
		has := false
		for _, t := range f.Targets {
			has = has || (t.Required && !t.SelfServed())
		}
		shared = shared && has
	}
	if !shared { // refused at load: such a rotator could read nothing back
		return
	}
	w.replicas[0].publishes = false
	w.replicas[1].publishes = false
	w.replicas[2].advance = false
}
