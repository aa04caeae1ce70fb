package keyring

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The walk is a small world around the real Plan: replicas with skewed clocks
// and old snapshots, saves that land late or never, targets that lag, rolling
// changes of configuration, and consumers that use any set that they could
// have fetched. After it every token is held against every such set.

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(second int) time.Time { return epoch.Add(time.Duration(second) * time.Second) }

const (
	walkC, walkE, walkLambda, walkSync = 4, 2, 1, 2
	walkSteps                          = 220
)

type walkToken struct {
	kid     string
	from    int // true time of iat
	expires int // true time at which the slowest consumer lets it go
}

type walkSave struct {
	land, base int
	next       *Snapshot
	by         int
}

type walkReplica struct {
	offset int // its clock less the true one
	snap   *Snapshot
	kept   *Snapshot // what its own endpoint serves
	cut    bool
	lag    bool // its endpoint does not take new sets
	fresh  []Fresh
	high   uint64
}

type world struct {
	t          *rapid.T
	selfServed bool
	stored     *Snapshot
	version    int
	replicas   [3]walkReplica
	flight     []walkSave
	bucket     *Snapshot
	bucketAt   int
	tokens     []walkToken
	fetchable  [][][]string // per second, per place, the kids
	files      [2]Config
	switchAt   [3]int
	period     int
	serial     int
	destroyed  map[string]bool
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, selfServed: rapid.Bool().Draw(t, "self_served"), destroyed: map[string]bool{}}
	w.period = rapid.SampledFrom([]int{60, 75}).Draw(t, "period")
	kind := TargetBucket
	if w.selfServed {
		kind = TargetHTTP
	}
	file := func(rev int64, ttl, budget int, rings ...string) Config {
		c := Config{
			Name: "main", URL: "https://t.example", Revision: rev, ConsumerCache: seconds(walkC), JWKSMaxAge: seconds(2),
			Leeway: seconds(walkLambda), ClockSkew: seconds(walkE), SyncInterval: seconds(walkSync), OutageBudget: seconds(budget),
			MaxKeys: 100, Targets: []Target{{Name: "set", Kind: kind, Required: true}},
		}
		for _, r := range rings {
			c.Rings = append(c.Rings, Ring{Name: r, Algorithm: EdDSA, Custody: "local", Rotate: "p", MaxTokenTTL: seconds(ttl)})
		}
		return c
	}
	rings := [][]string{{"a"}, {"a", "b"}}
	before := rapid.SampledFrom(rings).Draw(t, "rings_before")
	after := rapid.SampledFrom(rings).Draw(t, "rings_after")
	w.files = [2]Config{
		file(1, rapid.SampledFrom([]int{3, 6}).Draw(t, "T"), rapid.SampledFrom([]int{10, 16}).Draw(t, "B"), before...),
		file(2, rapid.SampledFrom([]int{2, 6, 12}).Draw(t, "T2"), rapid.SampledFrom([]int{10, 20}).Draw(t, "B2"), after...),
	}
	change := rapid.IntRange(20, 110).Draw(t, "change")
	for i := range w.replicas {
		w.replicas[i].offset = rapid.IntRange(-1, 1).Draw(t, "offset")
		w.switchAt[i] = change + rapid.IntRange(0, 30).Draw(t, "switch")
	}
	return w
}

func seconds(n int) Duration { return Duration(time.Duration(n) * time.Second) }

func (w *world) input(i, now int, seen Observation) Input {
	r := &w.replicas[i]
	file := w.files[0]
	if now >= w.switchAt[i] {
		file = w.files[1]
	}
	w.serial++
	return Input{
		Now: at(now + r.offset), WriteID: fmt.Sprint("w", w.serial), Lineage: fmt.Sprint("l", w.serial), File: file, Publishes: true,
		NextRun: func(_ string, after time.Time) time.Time { return after.Add(time.Duration(w.period) * time.Second) },
		Seen:    map[string]Observation{"set": seen}, Fresh: r.fresh,
	}
}

// seen is what a replica reads back: its own endpoint, or the shared bucket.
func (w *world) seen(i, now int) Observation {
	s, clock := w.bucket, now+w.replicas[i].offset
	if w.selfServed {
		s = w.replicas[i].kept
	}
	if s == nil {
		return Observation{}
	}
	return Observation{At: at(clock), Kids: w.render(s, clock)}
}

func (w *world) render(s *Snapshot, clock int) []string {
	set, err := Set(s, at(clock), ViewAll)
	if err != nil {
		w.t.Fatal(err)
	}
	return set.Kids
}

func (w *world) plan(i, now int) {
	r := &w.replicas[i]
	if r.snap == nil && w.stored != nil {
		return
	}
	version := w.version
	if r.snap != nil {
		version = int(r.snap.Generation)
	}
	out := Plan(r.snap, w.input(i, now, w.seen(i, now)))
	for _, ring := range out.Create {
		w.serial++
		r.fresh = append(r.fresh, Fresh{Ring: ring.Name, Custody: "local", JWK: JWK{Kty: "OKP", Alg: EdDSA, Kid: fmt.Sprintf("%s%d", ring.Name, w.serial)}})
	}
	for _, h := range out.Destroy {
		w.destroyed[h.Kid] = true
	}
	if out.Next == nil {
		return
	}
	late := 0
	if rapid.IntRange(0, 4).Draw(w.t, "late?") == 0 {
		late = rapid.IntRange(1, 8).Draw(w.t, "late")
	}
	w.flight = append(w.flight, walkSave{now + late, version, out.Next, i})
}

func (w *world) land(now int) {
	rest := w.flight[:0:0]
	for _, f := range w.flight {
		if f.land > now {
			rest = append(rest, f)
			continue
		}
		if f.base != w.version {
			continue // check-and-set lost
		}
		w.checkStep(w.stored, f.next)
		w.stored, w.version = f.next, int(f.next.Generation)
		if r := &w.replicas[f.by]; !r.cut && rapid.IntRange(0, 4).Draw(w.t, "reply") > 0 {
			w.read(f.by)
		}
	}
	w.flight = rest
}

func (w *world) read(i int) {
	r := &w.replicas[i]
	if w.stored == nil || w.stored.Generation < r.high {
		return
	}
	r.snap, r.high = w.stored, w.stored.Generation
}

func (w *world) publish(i, now int) {
	r := &w.replicas[i]
	if r.snap == nil || !r.snap.Servable() {
		return
	}
	if !r.lag {
		r.kept = r.snap
	}
	if w.bucket == nil || r.snap.Generation >= w.bucket.Generation {
		w.bucket, w.bucketAt = r.snap, now+r.offset
	}
}

func (w *world) sign(i, now int) {
	r := &w.replicas[i]
	if r.snap == nil {
		return
	}
	clock := now + r.offset
	for _, ring := range []string{"a", "b"} {
		k := r.snap.Active(ring)
		if k == nil || at(clock).After(r.snap.SignUntil(k)) || r.snap.LeaseFault(at(clock)) {
			continue
		}
		exp := clock + int(time.Duration(k.MaxTTL)/time.Second)
		// The slowest consumer's clock is E behind the fastest; offsets here are
		// within ±E/2 of the true time.
		w.tokens = append(w.tokens, walkToken{k.JWK.Kid, now, exp + walkLambda + walkE/2})
	}
}

// serve notes what consumers could fetch in this second.
func (w *world) serve(now int) {
	var places [][]string
	if w.selfServed {
		for i := range w.replicas {
			r := &w.replicas[i]
			if clock := now + r.offset; r.kept != nil && !at(clock).After(r.kept.ServeUntil()) {
				places = append(places, w.render(r.kept, clock))
			}
		}
	} else if w.bucket != nil {
		places = append(places, w.render(w.bucket, w.bucketAt))
	}
	w.fetchable = append(w.fetchable, places)
}

func (w *world) run() {
	for now := range walkSteps {
		for range rapid.IntRange(2, 6).Draw(w.t, "actions") {
			i := rapid.IntRange(0, 2).Draw(w.t, "replica")
			r := &w.replicas[i]
			switch a := rapid.IntRange(0, 99).Draw(w.t, "action"); {
			case a < 3:
				r.cut = !r.cut
			case a < 5:
				r.lag = !r.lag
			case a < 8: // crash; what it served stays on its host
				r.snap, r.fresh = nil, nil
			case a < 30:
				if !r.cut {
					w.read(i)
				}
			case a < 45:
				w.publish(i, now)
			case a < 80:
				if !r.cut {
					w.plan(i, now)
				}
			default:
				w.sign(i, now)
			}
			w.land(now)
		}
		w.serve(now)
	}
	w.checkTokens()
}

// checkTokens is I1.
func (w *world) checkTokens() {
	for _, tok := range w.tokens {
		for u := max(0, tok.from-walkC); u < min(walkSteps, tok.expires); u++ {
			for _, kids := range w.fetchable[u] {
				if !slices.Contains(kids, tok.kid) {
					w.t.Fatalf("I1: token of %s, signed at %d and good until %d, is not verifiable with the set %v fetched at %d", tok.kid, tok.from, tok.expires, kids, u)
				}
			}
		}
	}
}

// checkStep holds one committed manifest against the one before: I2, I3, I5, I7.
func (w *world) checkStep(before, after *Snapshot) {
	if before == nil {
		return
	}
	if after.Generation != before.Generation+1 || after.Lineage != before.Lineage {
		w.t.Fatalf("I2: generation %d of %s after %d of %s", after.Generation, after.Lineage, before.Generation, before.Lineage)
	}
	for _, ring := range []string{"a", "b"} {
		active := 0
		for i := range after.Keys {
			if after.Keys[i].Ring == ring && after.Keys[i].isActive() {
				active++
			}
		}
		if active > 1 || len(after.standbys(ring)) > 1 {
			w.t.Fatalf("I3: ring %s has %d active and %d standby keys", ring, active, len(after.standbys(ring)))
		}
		_, kept := after.Config.Ring(ring)
		if before.Active(ring) != nil && active == 0 && kept {
			w.t.Fatalf("I3: ring %s lost its active key", ring)
		}
	}
	for i := range before.Keys {
		w.checkKey(before, after, &before.Keys[i])
	}
}

func (w *world) checkKey(before, after *Snapshot, old *Key) {
	k := after.Key(old.JWK.Kid)
	if k == nil {
		return
	}
	if until := before.SignUntil(old); after.SignUntil(k).Before(until) {
		w.t.Fatalf("I5: sign_until of %s fell from %v to %v", k.JWK.Kid, until, after.SignUntil(k))
	}
	if k.Tail < old.Tail || k.MaxTTL < old.MaxTTL {
		w.t.Fatalf("I5: tail or T of %s was lowered", k.JWK.Kid)
	}
	if !old.Closed.IsZero() && (k.Closed.IsZero() || k.isActive()) {
		w.t.Fatalf("I7: closed key %s came back", k.JWK.Kid)
	}
	if w.destroyed[k.JWK.Kid] && (k.isActive() || k.isStandby()) {
		w.t.Fatalf("I7: the half of %s is destroyed and the key is %s", k.JWK.Kid, k.State(after.WrittenAt))
	}
}

func TestWalksKeepThePromise(t *testing.T) {
	tokens, rotations := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 3 { // worlds a check; the rare orders are met by rotator's simulator
			w := newWorld(t)
			w.run()
			tokens += len(w.tokens)
			for i := range w.stored.Keys {
				if !w.stored.Keys[i].Retired.IsZero() {
					rotations++
				}
			}
		}
	})
	t.Logf("%d tokens, %d retirements", tokens, rotations)
	if tokens == 0 || rotations == 0 {
		t.Error("the walks signed or rotated nothing: they prove nothing")
	}
}
