package gate

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	flood uint32 = 1000 + iota
	calm
	third
)

// crowd makes requests that work for a while, in a bubble with its own time,
// and writes down who was let in, in order.
type crowd struct {
	t     *testing.T
	turns *Turns
	mu    sync.Mutex
	let   []uint32
	most  map[uint32]int // at once
	in    map[uint32]int
	wg    sync.WaitGroup
}

func newCrowd(t *testing.T, cfg TurnsConfig) *crowd {
	return &crowd{t: t, turns: NewTurns(cfg), most: map[uint32]int{}, in: map[uint32]int{}}
}

// ask takes a turn and works.
func (c *crowd) ask(uid uint32, work time.Duration) {
	turn, err := c.turns.Enter(context.Background(), uid)
	if err != nil {
		c.t.Errorf("uid %d: %v", uid, err)
		return
	}
	c.mu.Lock()
	c.let = append(c.let, uid)
	c.in[uid]++
	c.most[uid] = max(c.most[uid], c.in[uid])
	c.mu.Unlock()
	time.Sleep(work)
	c.mu.Lock()
	c.in[uid]--
	c.mu.Unlock()
	turn.Leave()
}

// come sends requests that arrive one after the other, and returns when each
// works or waits.
func (c *crowd) come(uid uint32, n int, work time.Duration) {
	for range n {
		c.wg.Go(func() { c.ask(uid, work) })
		synctest.Wait()
	}
}

// keep asks again and again until the time is up.
func (c *crowd) keep(uid uint32, conns int, work, until time.Duration) {
	end := time.Now().Add(until)
	for range conns {
		c.wg.Go(func() {
			for time.Now().Before(end) {
				c.ask(uid, work)
			}
		})
	}
}

func (c *crowd) count(uid uint32) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, who := range c.let {
		if who == uid {
			n++
		}
	}
	return n
}

func (c *crowd) peak(uid uint32) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most[uid]
}

// TestTurnsBound: no more at once than there are slots, all of them used while
// somebody waits, and in the order of arrival.
func TestTurnsBound(t *testing.T) {
	for _, slots := range []int{1, 2, 5} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, TurnsConfig{Slots: slots})
			began := time.Now()
			c.come(flood, 20, time.Millisecond)
			if n := c.turns.Waiting(); n != 20-slots {
				t.Errorf("%d slots: %d wait, want %d", slots, n, 20-slots)
			}
			c.wg.Wait()
			if c.peak(flood) != slots {
				t.Errorf("%d slots: %d at once", slots, c.peak(flood))
			}
			if took, want := time.Since(began), time.Duration((20+slots-1)/slots)*time.Millisecond; took != want {
				t.Errorf("%d slots: took %s, want %s: a slot was idle while somebody waited", slots, took, want)
			}
		})
	}
}

func TestTurnsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(TurnsConfig{Slots: 1})
		first, err := turns.Enter(t.Context(), flood)
		must(t, err)
		var order []int
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				turn, err := turns.Enter(t.Context(), flood)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				turn.Leave()
			})
			synctest.Wait()
		}
		first.Leave()
		wg.Wait()
		for i, who := range order {
			if i != who {
				t.Fatalf("let in as %v", order)
			}
		}
	})
}

// TestTurnsCalmOneIsNext: behind sixty-four requests of one user, the single
// one of another is let in as soon as a slot is free; and where he was there
// shortly before, one is free.
func TestTurnsCalmOneIsNext(t *testing.T) {
	for _, slots := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, TurnsConfig{Slots: slots})
			c.come(flood, 64, time.Millisecond)
			began := time.Now()
			c.ask(calm, 0)
			if took := time.Since(began); took > time.Millisecond {
				t.Errorf("%d slots: the first request waited %s", slots, took)
			}
			time.Sleep(1500 * time.Microsecond) // in the midst of somebody's turn
			began = time.Now()
			c.ask(calm, 0)
			most := time.Duration(0)
			if slots == 1 {
				most = time.Millisecond
			}
			if took := time.Since(began); took > most {
				t.Errorf("%d slots: the second request waited %s, want %s at most", slots, took, most)
			}
			c.wg.Wait()
			if n := c.count(flood); n != 64 {
				t.Errorf("%d slots: %d of 64 were let in", slots, n)
			}
		})
	}
}

// TestTurnsLastSlot: who is alone has all slots; who is not leaves one to the
// others, until they have been idle for a while.
func TestTurnsLastSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, TurnsConfig{Slots: 3})
		c.ask(calm, 0)
		c.come(flood, 12, 10*time.Millisecond)
		if c.peak(flood) != 2 {
			t.Errorf("%d at once while another is active, want 2", c.peak(flood))
		}
		c.wg.Wait()
		time.Sleep(2 * activeFor)
		c.come(flood, 12, 10*time.Millisecond)
		if c.peak(flood) != 3 {
			t.Errorf("%d at once while nobody else is active, want 3", c.peak(flood))
		}
		c.wg.Wait()
	})
	synctest.Test(t, func(t *testing.T) { // the others go while he works
		c := newCrowd(t, TurnsConfig{Slots: 2})
		c.ask(calm, 0)
		c.come(flood, 30, 10*time.Millisecond)
		c.wg.Wait()
		if c.peak(flood) != 2 {
			t.Errorf("%d at once long after the other was idle, want 2", c.peak(flood))
		}
	})
}

// TestTurnsSlotsOfOne: who may have some of the slots only leaves the others
// free, though nobody else was there before.
func TestTurnsSlotsOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, TurnsConfig{Slots: 4, SlotsOfOne: 2})
		c.come(flood, 6, time.Second)
		if n := c.turns.Waiting(); n != 4 {
			t.Errorf("%d wait, want 4", n)
		}
		began := time.Now()
		c.ask(calm, 0)
		if took := time.Since(began); took != 0 {
			t.Errorf("another one waited %s", took)
		}
		c.wg.Wait()
		if n := c.peak(flood); n != 2 {
			t.Errorf("%d at once", n)
		}
	})
}

// TestTurnsPart: who has had a queue for a while gets what another one leaves who
// is active and has none, a sixty-fourth at least, and all of it otherwise.
func TestTurnsPart(t *testing.T) {
	for name, tc := range map[string]struct {
		slots, others int           // connections of the other one
		pause         time.Duration // of the other one, between requests
		low, high     float64       // share of all slots' time
	}{
		"alone":                       {2, 0, 0, 0.99, 1.01},
		"beside one without a queue":  {2, 1, 10 * time.Millisecond, 0.14, 0.21},
		"of one slot":                 {1, 1, 10 * time.Millisecond, 0.12, 0.21},
		"of eight slots":              {8, 1, 10 * time.Millisecond, 0.12, 0.21},
		"beside one who needs much":   {2, 1, 50 * time.Microsecond, 0.005, 0.05},
		"beside one who comes rarely": {2, 1, time.Second, 0.85, 0.97},
		// Each keeps to his part for the other's sake until that one's queue has lasted.
		"beside one with a queue":       {2, 64, 0, 0.38, 0.52},
		"of one slot, one with a queue": {1, 64, 0, 0.38, 0.52},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, TurnsConfig{Slots: tc.slots})
			const span, work = 3 * time.Second, 50 * time.Microsecond
			end := time.Now().Add(span)
			c.keep(flood, 64, work, span)
			for range tc.others {
				c.wg.Go(func() {
					for time.Now().Before(end) {
						began := time.Now()
						c.ask(calm, work)
						if took := time.Since(began); tc.pause > 0 && took > 2*work+time.Microsecond {
							t.Errorf("%s: the other one waited %s", name, took)
						}
						time.Sleep(tc.pause)
					}
				})
			}
			c.wg.Wait()
			share := float64(c.count(flood)) * float64(work) / float64(span) / float64(tc.slots)
			if share < tc.low || share > tc.high {
				t.Errorf("%s: has %.2f of the time, want %.2f to %.2f", name, share, tc.low, tc.high)
			}
		})
	}
}

// TestTurnsBurst: a burst is not held to a part of the time, for it is over soon.
func TestTurnsBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, TurnsConfig{Slots: 2})
		c.ask(calm, 0)
		began := time.Now()
		c.come(flood, 100, 50*time.Microsecond) // five milliseconds of work
		c.wg.Wait()
		if took := time.Since(began); took != 5*time.Millisecond {
			t.Errorf("took %s through the one slot that it has, want 5ms", took)
		}
	})
}

// TestTurnsShares: what users get is the same, however many connections they
// have and however long their requests take.
func TestTurnsShares(t *testing.T) {
	for name, work := range map[string][2]time.Duration{
		"the same":        {time.Millisecond, time.Millisecond},
		"one is costlier": {30 * time.Millisecond, time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, TurnsConfig{Slots: 1})
			c.keep(flood, 64, work[0], 6*time.Second)
			c.keep(calm, 8, work[1], 6*time.Second)
			time.Sleep(6 * time.Second)
			a, b := time.Duration(c.count(flood))*work[0], time.Duration(c.count(calm))*work[1]
			if ratio := float64(a) / float64(b); ratio < 0.95 || ratio > 1.05 {
				t.Errorf("%s: the one with 64 connections got %s, the one with 8 got %s", name, a, b)
			}
			c.wg.Wait()
		})
	}
}

// TestTurnsStopped: a process that stood still in the midst of a turn does not
// make its user wait for as long afterwards.
func TestTurnsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, TurnsConfig{Slots: 1})
		c.ask(flood, 10*time.Minute)
		c.keep(calm, 8, time.Millisecond, 2*time.Second)
		c.keep(flood, 8, time.Millisecond, 2*time.Second)
		time.Sleep(2 * time.Second)
		if n := c.count(flood); n < 600 {
			t.Errorf("let in %d times in two seconds, want about 750", n)
		}
		c.wg.Wait()
	})
}

func TestTurnsRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, TurnsConfig{Slots: 1, OfOne: 4, InAll: 6})
		c.come(flood, 5, time.Millisecond) // one works, four wait
		if _, err := c.turns.Enter(t.Context(), flood); !errors.Is(err, ErrBusy) {
			t.Errorf("the fifth in the queue of one: %v", err)
		}
		c.come(calm, 2, time.Millisecond)
		if _, err := c.turns.Enter(t.Context(), third); !errors.Is(err, ErrBusy) {
			t.Errorf("the seventh in all: %v", err)
		}
		c.wg.Wait()
		c.ask(third, 0)
		if n := len(c.let); n != 8 {
			t.Errorf("%d were let in, want 8", n)
		}
	})
}

// TestTurnsGoneCaller: who hangs up leaves the queue at once, and a slot that
// he was given in the same moment goes to the next.
func TestTurnsGoneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(TurnsConfig{Slots: 1})
		held, err := turns.Enter(t.Context(), flood)
		must(t, err)
		ctx, hangUp := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := turns.Enter(ctx, flood); !errors.Is(err, context.Canceled) {
					t.Errorf("Enter = %v", err)
				}
			})
		}
		synctest.Wait()
		hangUp()
		wg.Wait()
		if n := turns.Waiting(); n != 0 {
			t.Errorf("%d wait still", n)
		}
		if len(turns.queue) != 0 {
			t.Error("the user is still in the queue")
		}
		held.Leave()
		next, err := turns.Enter(t.Context(), calm)
		must(t, err)
		next.Leave()
	})
}

// TestTurnsForget: nothing is left of users who are idle.
func TestTurnsForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(TurnsConfig{Slots: 2})
		for wave := range 3 {
			for uid := range uint32(5000) {
				turn, err := turns.Enter(t.Context(), uint32(wave)*5000+uid)
				must(t, err)
				turn.Leave()
			}
			time.Sleep(2 * activeFor)
		}
		if n := len(turns.users); n > 5000 {
			t.Errorf("%d users are known, 5,000 were active at once", n)
		}
		for uid := range uint32(6000) {
			time.Sleep(activeFor)
			turn, err := turns.Enter(t.Context(), uid)
			must(t, err)
			turn.Leave()
		}
		if n := len(turns.users); n > 4 {
			t.Errorf("%d users are known, two were active", n)
		}
		if turns.spares > spareUsers {
			t.Errorf("%d are kept", turns.spares)
		}
	})
}
