package rotator

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "seed of the first walk; 0 draws one")
	simWalks = flag.Int("sim.walks", 0, "how many walks; 0: as many as there is time for")
	simSteps = flag.Int("sim.steps", 400, "steps of a walk, before all is mended")
	simTime  = flag.Duration("sim.time", 0, "how long to walk, where the number is not given; 0: 20s, with the race detector 6s")
	simBrief = flag.Bool("sim.brief", false, "do not tell the story of a walk that fails")
	simOnly  = flag.String("sim.climate", "", "walk in these climates only, by name, with commas between")
)

func newSimRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// simRun is one walk; the seed alone says what happens in it.
func simRun(seed uint64, pool *simPool, climate simClimate, steps int, tell bool) (w *simWorld, err error) {
	defer func() {
		if x := recover(); x != nil {
			v, ok := x.(*violation)
			if !ok {
				panic(x)
			}
			err = v
		}
		if w != nil {
			w.end()
		}
	}()
	chance := &simChance{rng: newSimRand(seed)}
	w = &simWorld{}
	w.draw(chance, pool.keys(), climate, tell)
	heal := chance.one(3)
	w.walk(steps)
	if heal {
		w.heal()
	}
	return w, nil
}

func TestSimWalks(t *testing.T) {
	seed := *simSeed
	if seed == 0 {
		seed = rand.Uint64() >> 32
	}
	limit := *simTime
	switch {
	case limit == 0 && simRace:
		limit = 6 * time.Second
	case limit == 0:
		limit = 20 * time.Second
	}
	pool, climates := newSimPool(), simClimates()
	if *simOnly != "" {
		only := strings.Split(*simOnly, ",")
		climates = slices.DeleteFunc(climates, func(c simClimate) bool { return !slices.Contains(only, c.name) })
	}
	if len(climates) == 0 {
		t.Fatalf("no climate is named %q", *simOnly)
	}
	var total simCount
	total.Faults = map[string]int{}
	began := time.Now()
	walks := 0
	for ; (*simWalks > 0 && walks < *simWalks) || (*simWalks == 0 && time.Since(began) < limit); walks++ {
		climate := climates[(seed+uint64(walks))%uint64(len(climates))]
		w, err := simRun(seed+uint64(walks), pool, climate, *simSteps, false)
		total.add(&w.count)
		if err != nil {
			if !*simBrief {
				w, _ = simRun(seed+uint64(walks), pool, climate, *simSteps, true)
				fmt.Println(strings.Join(w.story, "\n"))
			}
			t.Fatalf("walk %d, climate %s: %v\nreplay: go test ./rotator -run TestSimWalks -v -sim.seed %d -sim.walks 1 -sim.steps %d -sim.climate %s",
				walks, climate.name, err, seed+uint64(walks), *simSteps, climate.name)
		}
	}
	total.tell(t, seed, walks, time.Since(began))
	if total.Tokens == 0 || total.Rotations == 0 || total.Commits == 0 {
		t.Error("the walks signed or rotated nothing: they prove nothing")
	}
	if *simOnly == "" && walks >= 6*len(climates) && (total.Rollbacks == 0 || total.Revocations == 0 || total.Freezes == 0 || total.Accepts == 0 || total.Crashes == 0) {
		t.Error("the walks left out a kind of event")
	}
}

// tell prints what the walks were made of.
func (c *simCount) tell(t *testing.T, seed uint64, walks int, took time.Duration) {
	t.Logf("seed %d: %d walks of %d steps in %s: %d ticks, %d manifests, %d tokens (%d outside of the promise), %d activations, %d rollbacks asked, %d keys revoked, %d frozen writes, %d accepts",
		seed, walks, *simSteps, took.Round(time.Millisecond), c.Ticks, c.Commits, c.Tokens, c.Exempt, c.Rotations, c.Rollbacks, c.Revocations, c.Freezes, c.Accepts)
	var faults []string
	for _, kind := range slices.Sorted(maps.Keys(c.Faults)) {
		faults = append(faults, fmt.Sprintf("%s %d", kind, c.Faults[kind]))
	}
	t.Logf("faults: %s", strings.Join(faults, ", "))
}
