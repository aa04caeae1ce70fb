package rotator_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// clocks are a host's clocks, by which a test may do what it likes.
type clocks struct {
	set       atomic.Int64 // by how much the wall clock was set
	suspended atomic.Int64 // what the boot clock does not know
	store     atomic.Int64 // by how much the store's clock is wrong
	mute      atomic.Bool  // the store has no clock
	start     time.Time
}

func (c *clocks) wall() time.Time { return time.Now().Add(time.Duration(c.set.Load())) }

func (c *clocks) in(cfg *rotator.Config) {
	c.start = time.Now()
	cfg.Now = func() rotator.Instant {
		return rotator.Instant{Wall: c.wall(), Boot: time.Since(c.start) - time.Duration(c.suspended.Load())}
	}
	cfg.StoreClock = func() (rotator.StoreClock, bool) {
		date := time.Now().Add(time.Duration(c.store.Load())).Truncate(time.Second)
		return rotator.StoreClock{Date: date, Sent: c.wall(), Received: c.wall()}, !c.mute.Load()
	}
}

// TestClockDoubt: a clock that is wrong against the store's, or that jumped
// against the boot clock, freezes every transition until it is confirmed; there
// is no mass retirement, and nothing is repeated. Fault 28.
func TestClockDoubt(t *testing.T) {
	year, hour := 365*24*time.Hour, time.Hour
	for _, tc := range []struct {
		name      string
		by        time.Duration
		mute      bool // the store has no clock
		wrongHost bool // it is the store's clock that is set
		says      string
	}{
		{"a year ahead", year, false, false, "ahead of the store's"},
		{"an hour back", -hour, false, false, "behind the store's"},
		{"a little more than clock_skew", 12 * time.Second, false, false, "ahead of the store's"},
		{"a year ahead, and the store has no clock", year, true, false, "set ahead by"},
		{"an hour back, and the store has no clock", -hour, true, false, "set back by"},
		{"the store is a year ahead", year, false, true, "behind the store's"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, c := newWorld(t), &clocks{}
				c.mute.Store(tc.mute)
				r := w.start(c.in)
				sleep(70*time.Minute + 30*time.Second)
				before, writes := w.manifest(), w.writes()
				set := &c.set
				if tc.wrongHost {
					set = &c.store
				}
				set.Store(int64(tc.by))
				sleep(3 * time.Hour)
				if w.writes() != writes {
					t.Errorf("%d writes", w.writes()-writes)
				}
				alarms := r.rot.Alarms()
				i := slices.IndexFunc(alarms, func(a alarm) bool { return a.Code == "clock_fault" })
				if i < 0 || !strings.Contains(alarms[i].Message, tc.says) {
					t.Errorf("alarms %+v", alarms)
				}
				if !r.rot.Clock("main").Doubt {
					t.Error("others do not hear of it")
				}
				set.Store(0)
				sleep(10 * time.Minute)
				if got := r.alarms(); got != nil || r.rot.Clock("main").Doubt {
					t.Errorf("with the clock right again: %v", got)
				}
				if s := w.manifest(); s.Generation == before.Generation || s.Active("web").JWK.Kid != before.Standby("web").JWK.Kid {
					t.Error("it does not go on")
				}
				sleep(3 * time.Hour)
				w.wantWhole()
				r.stop()
			})
		})
	}
}

// TestClockSuspend: a machine that slept has a boot clock that knows it, and one
// whose boot clock does not is in doubt until the store confirms the wall clock.
func TestClockSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c := newWorld(t), &clocks{}
		r := w.start(c.in)
		sleep(70*time.Minute + 30*time.Second)
		c.suspended.Store(int64(5 * time.Hour)) // the wall clock went on, this one did not
		got := r.rot.Clock("main")
		if !got.Doubt || !got.Late.Equal(time.Now()) || !got.Early.Equal(time.Now().Add(-5*time.Hour)) {
			t.Errorf("right after: %+v at %v", got, time.Now())
		}
		sleep(2 * time.Minute) // the store was read, and its clock agrees
		if got := r.rot.Clock("main"); got.Doubt || !got.Early.Equal(got.Late) || r.alarms() != nil {
			t.Errorf("confirmed: %+v, %v", got, r.alarms())
		}
		r.stop()
	})
}

// TestClockBeforeTheMark: a start before the persisted time serves nothing
// until the store answers.
func TestClockBeforeTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c, dir := newWorld(t), &clocks{}, t.TempDir()
		r := w.start(in(dir), c.in)
		sleep(70*time.Minute + 30*time.Second)
		r.stop()
		for _, tc := range []struct {
			set    time.Duration
			serves bool
		}{{0, true}, {-15 * time.Minute, false}} {
			w.change(func() { w.down = errInjected })
			c.set.Store(int64(tc.set))
			r = w.start(in(dir), c.in)
			sleep(5 * time.Second)
			if n := len(r.handedOn()); (n > 0) != tc.serves {
				t.Errorf("set by %v: handed on %d", tc.set, n)
			}
			w.change(func() { w.down = nil })
			c.set.Store(0)
			sleep(time.Minute)
			if len(r.handedOn()) == 0 {
				t.Error("nothing is served when the store is back")
			}
			r.stop()
		}
	})
}

// TestRetry: a store that is back is tried at once, not after the backoff.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		w.change(func() { w.down = errInjected })
		sleep(5 * time.Minute)
		w.change(func() { w.down = nil })
		r.rot.Wake()
		synctest.Wait()
		if got := r.alarms(); got == nil {
			t.Error("a wake ends the backoff: every target that is read back would try a failing store")
		}
		r.rot.Retry()
		synctest.Wait()
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestClockAtStart: a process that starts with a wrong clock has only the
// store's to go by, and a slow answer confirms nothing.
func TestClockAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, c := newWorld(t), &clocks{}
		first := w.start(c.in)
		sleep(70*time.Minute + 30*time.Second)
		first.stop()
		c.set.Store(int64(-70 * time.Second))
		r := w.start(c.in)
		sleep(2 * time.Minute)
		if got := r.rot.Clock("main"); !got.Doubt || time.Since(got.Late) > 2*time.Second {
			t.Errorf("behind: %+v at %v", got, time.Now())
		}
		r.stop()
		c.set.Store(0)
		slow := &slowStore{}
		r = w.start(c.in, func(cfg *rotator.Config) { slow.Store = cfg.Store; cfg.Store = slow })
		sleep(2 * time.Minute)
		if got := r.alarms(); !slices.Contains(got, "clock_fault") {
			t.Errorf("a slow answer confirms a clock: %v", got)
		}
		slow.quick.Store(true)
		sleep(2 * time.Minute)
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// slowStore takes longer than clock_skew to answer.
type slowStore struct {
	rotator.Store
	quick atomic.Bool
}

func (s *slowStore) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	if !s.quick.Load() {
		time.Sleep(15 * time.Second)
	}
	return s.Store.Load(ctx, issuer)
}
