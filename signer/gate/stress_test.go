package gate

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestTurnsStress takes turns from many goroutines of many users, some of which
// hang up, and looks whether the bounds held and everything was given back.
func TestTurnsStress(t *testing.T) {
	const slots = 3
	turns := NewTurns(TurnsConfig{Slots: slots})
	var in, most atomic.Int32
	var wg sync.WaitGroup
	for g := range 48 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 7))
			for range 400 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.IntN(400))*time.Microsecond)
				turn, err := turns.Enter(ctx, uint32(rnd.IntN(6)))
				if err == nil {
					n := in.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					time.Sleep(time.Duration(rnd.IntN(30)) * time.Microsecond)
					in.Add(-1)
					turn.Leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > slots {
		t.Errorf("%d at once, there are %d slots", n, slots)
	}
	if turns.busy != 0 || turns.waiting != 0 || len(turns.queue) != 0 {
		t.Errorf("left behind: %d busy, %d waiting, %d queues", turns.busy, turns.waiting, len(turns.queue))
	}
	for range slots { // all are free: the only user has them
		if _, err := turns.Enter(t.Context(), 99); err != nil {
			t.Fatal(err)
		}
		time.Sleep(activeFor)
	}
}
