package rotator

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simSearch goes through every interleaving of a small world: depth first over
// the choices of the scheduler, the world made anew for each path. A state that
// was met before is not gone into again: everything that follows from it has
// been, or is being, looked at.
type simSearch struct {
	path, width []int
	depth       int
	met         map[uint64]bool

	Paths, States, Moves int
}

// choose is the next choice of this path.
func (s *simSearch) choose(n int) int {
	if s.depth == len(s.path) {
		s.path, s.width = append(s.path, 0), append(s.width, n)
	}
	c := s.path[s.depth]
	s.depth++
	return c
}

// known reports a state that was met before this path came to it.
func (s *simSearch) known(state string) bool {
	if s.depth < len(s.path) {
		return false // on the way to the choice that is new
	}
	h := fnv.New64a()
	h.Write([]byte(state))
	if s.met[h.Sum64()] {
		return true
	}
	s.met[h.Sum64()] = true
	s.States++
	return false
}

// next turns to the next path; false where there is none.
func (s *simSearch) next() bool {
	for len(s.path) > 0 {
		last := len(s.path) - 1
		if s.path[last]++; s.path[last] < s.width[last] {
			s.depth = 0
			return true
		}
		s.path, s.width = s.path[:last], s.width[:last]
	}
	return false
}

// simScene is a small world: how it comes about, and what may happen in it.
type simScene struct {
	name string
	// before brings two replicas to where it becomes interesting.
	before func(w *simWorld)
	// begin starts the ticks whose steps are interleaved.
	begin   func(w *simWorld)
	crashes int
	// large ones are left to runs without the race detector.
	large bool
	// check is held against each end, beside the invariants.
	check func(w *simWorld)
}

// simSmall is a world of two replicas without chance.
func simSmall() *simWorld {
	w := &simWorld{}
	w.chance = &simChance{branch: func(n int) int { return n - 1 }}
	w.keys, w.now, w.count = newSimPool().keys(), simEpoch, simCount{Faults: map[string]int{}}
	w.store.init(w)
	w.tokens.init(w)
	w.healing = true
	w.files = []keyring.Config{{
		Name: "main", URL: "https://t.example", Revision: 1, ConsumerCache: keyring.Duration(simC), JWKSMaxAge: simSeconds(20),
		Leeway: keyring.Duration(simLambda), ClockSkew: keyring.Duration(simE), SyncInterval: keyring.Duration(simSync), OutageBudget: simSeconds(100), MaxKeys: 100,
		Targets: []keyring.Target{{Name: "bucket", Kind: keyring.TargetBucket, Required: true}},
		Rings:   []keyring.Ring{{Name: "a", Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: "@every 240s", MaxTokenTTL: simSeconds(30)}},
	}}
	for i, offset := range []time.Duration{-simE / 2, simE / 2} {
		r := newSimReplica(w, i)
		r.offset = offset
		w.replicas = append(w.replicas, r)
	}
	w.buildPlaces()
	for _, r := range w.replicas {
		r.start()
	}
	return w
}

// state describes all that decides what can follow.
func (w *simWorld) state(crashes int) string {
	var b strings.Builder
	fmt.Fprint(&b, crashes, w.store.version.number, w.store.writes, slices.Sorted(maps.Keys(w.store.halves)))
	for _, f := range w.store.flight {
		fmt.Fprint(&b, "flight", f.by.id, f.version, f.by.trace)
	}
	for _, r := range w.replicas {
		fmt.Fprint(&b, r.id, r.alive, r.trace)
		if r.tick != nil && r.tick.call != nil {
			fmt.Fprint(&b, r.tick.call.op, r.tick.call.applied, r.tick.call.result)
		}
	}
	return b.String()
}

// simMove is something that may happen next.
type simMove struct {
	what string
	do   func()
}

// moves are all that may happen next.
func (w *simWorld) moves(crashes *int) []simMove {
	var out []simMove
	for i := range w.store.flight {
		if w.faults.disturbed {
			break // as simStore.land
		}
		out = append(out, simMove{"a late write lands", func() {
			f := w.store.flight[i]
			w.store.flight = slices.Delete(w.store.flight, i, i+1)
			_ = w.store.save(f)
		}})
	}
	for _, r := range w.replicas {
		if r.tick == nil {
			continue
		}
		out = append(out, simMove{"step", r.stepOnce})
		if *crashes > 0 {
			out = append(out, simMove{"crash", func() {
				*crashes--
				if c := r.tick.call; c != nil && c.write != nil && !c.applied {
					w.store.flight = append(w.store.flight, *c.write)
				}
				r.crash()
			}})
		}
	}
	return out
}

// stepOnce lets the call that waits happen, or its reply arrive.
func (r *simReplica) stepOnce() {
	c := r.tick.call
	if c.applied || c.op == "pause" {
		r.step()
		return
	}
	c.result, c.err = c.happen()
	c.applied, c.date = true, r.w.now
	if c.write == nil { // only of a write it matters whether the reply arrived
		r.reply(c)
	}
}

// play goes along one path. It reports whether the path came to its end.
func (sc *simScene) play(s *simSearch) (err error) {
	w := simSmall()
	defer func() {
		if x := recover(); x != nil {
			v, ok := x.(*violation)
			if !ok {
				panic(x)
			}
			err = v
		}
		w.end()
	}()
	sc.before(w)
	for _, r := range w.replicas {
		r.trace = nil
	}
	w.store.writes = nil
	sc.begin(w)
	crashes := sc.crashes
	for {
		moves := w.moves(&crashes)
		if len(moves) == 0 {
			break
		}
		if s.known(w.state(crashes)) {
			return nil
		}
		s.Moves++
		moves[s.choose(len(moves))].do()
		w.signAll()
	}
	s.Paths++
	w.mendAll()
	w.runUntil(w.now.Add(90 * time.Second))
	sc.check(w)
	return nil
}

// TestSimEveryInterleaving searches each small world to its end.
func TestSimEveryInterleaving(t *testing.T) {
	for _, sc := range simScenes() {
		if sc.large && simRace {
			continue // TestMutants runs them all, without it
		}
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			s := &simSearch{met: map[uint64]bool{}}
			began := time.Now()
			for {
				if err := sc.play(s); err != nil {
					t.Fatalf("path %v: %v", s.path[:s.depth], err)
				}
				if !s.next() {
					break
				}
			}
			t.Logf("%d ends, %d states, %d moves in %s", s.Paths, s.States, s.Moves, time.Since(began).Round(time.Millisecond))
			if s.Paths < 10 {
				t.Errorf("only %d ends: this is no search", s.Paths)
			}
		})
	}
}
