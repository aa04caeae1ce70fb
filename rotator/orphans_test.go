package rotator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// TestOrphansAreSwept after the grace period of ten ticks, not before.
func TestOrphansAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		start := time.Now()
		w.change(func() { w.halves["lost"] = true })
		exists := func() bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.halves["lost"]
		}
		for exists() {
			if time.Since(start) > 20*time.Minute {
				t.Fatal("an orphan is not swept")
			}
			sleep(30 * time.Second)
		}
		if took := time.Since(start); took < 10*time.Minute {
			t.Errorf("swept after %v", took)
		}
		if r.seen(keyring.OrphanClosed) != 1 || r.seen(keyring.OrphanDestroyed) != 1 || !slices.Equal(w.destroyed, []string{"lost"}) {
			t.Errorf("destroyed %q, events %v", w.destroyed, r.events)
		}
		w.wantWhole()
		r.stop()
	})
}

// TestOrphanThatGetsAName within the grace period lives: another replica was
// about to save it.
func TestOrphanThatGetsAName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		w.change(func() { w.halves["slow"] = true })
		sleep(8 * time.Minute)
		w.change(func() { delete(w.halves, "slow") }) // as good as named: it is no orphan any more
		sleep(3 * time.Minute)                        // it looks every quarter of the period
		w.change(func() { w.halves["slow"] = true })
		sleep(8 * time.Minute)
		if !w.halves["slow"] || r.seen(keyring.OrphanClosed) != 0 {
			t.Error("the grace period did not start anew")
		}
		sleep(10 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}

// TestListFails: nothing but the sweeping waits for a list of the halves.
func TestListFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "list" {
					return fails
				}
				return works
			}
		})
		sleep(3 * time.Hour)
		s := w.manifest()
		if !s.Lease.After(time.Now()) || time.Since(s.Active("web").Activated) > time.Hour {
			t.Errorf("lease until %v, active since %v, it is %v", s.Lease, s.Active("web").Activated, time.Now())
		}
		if got := r.alarms(); !slices.Equal(got, []string{"halves_not_listed"}) {
			t.Errorf("alarms %v", got)
		}
		w.change(func() { w.hook = nil })
		sleep(5 * time.Minute)
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestCreateFails: the rest of the life goes on, an alarm says why there is no
// new key, and it comes by itself. Fault 36.
func TestCreateFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "create" {
					return fails
				}
				return works
			}
		})
		sleep(90 * time.Minute)
		s := w.manifest()
		if s.Standby("web") != nil || time.Since(s.Active("web").Activated) > time.Hour || !s.Lease.After(time.Now()) {
			t.Errorf("%+v", s)
		}
		if got := r.alarms(); !slices.Equal(got, []string{"key_not_created"}) {
			t.Errorf("alarms %v", got)
		}
		if m := r.rot.Alarms()[0]; m.Ring != "web" || m.Issuer != "main" || !strings.Contains(m.Message, "injected") {
			t.Errorf("alarm %+v", m)
		}
		w.change(func() { w.hook = nil })
		sleep(20 * time.Minute)
		w.wantWhole()
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestPartialCreate: of two rings one gets its key; the other's alarm stays,
// and the founding waits for both.
func TestPartialCreate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		two := func(c *rotator.Config) {
			c.Issuers[0].Rings = append(c.Issuers[0].Rings, keyring.Ring{Name: "api", Algorithm: keyring.EdDSA, Custody: "transit", Rotate: "0 * * * *", MaxTokenTTL: minutes(10)})
		}
		r := w.start(two)
		sleep(5 * time.Minute)
		if s := w.manifest(); len(s.Keys) != 0 {
			t.Errorf("one ring was founded alone: %+v", s.Keys)
		}
		if got := r.alarms(); !slices.Equal(got, []string{"key_not_created"}) {
			t.Errorf("alarms %v", got)
		}
		r.stop()
		r = w.start(two, func(c *rotator.Config) { c.Halves["transit"] = c.Halves["vaultkv"] })
		sleep(time.Minute)
		if s := w.manifest(); s.Active("web") == nil || s.Active("api") == nil {
			t.Error("not founded")
		}
		sleep(20 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}

// TestStoreDown: an alarm, a patient loop, and after the store's return one
// rotation, without a restart. Faults 7 and 9.
func TestStoreDown(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code string
	}{
		{keyring.ErrUnavailable, "store_unavailable"}, {keyring.ErrDenied, "store_denied"},
		{context.DeadlineExceeded, "store_unavailable"}, {errors.New("what is this"), "store_unavailable"},
	} {
		t.Run(tc.err.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				r := w.start()
				sleep(50 * time.Minute)
				before, snapshot := w.manifest(), r.rot.Status("main")
				w.change(func() { w.down = tc.err })
				loads := w.count("load")
				sleep(3 * time.Hour)
				if got := r.rot.Alarms(); len(got) != 1 || got[0].Code != tc.code || time.Since(got[0].Since) < 3*time.Hour-time.Minute {
					t.Errorf("alarms %+v", got)
				}
				if s := r.rot.Status("main"); s.Snapshot != snapshot.Snapshot || time.Since(s.ReadAt) < 3*time.Hour-time.Minute {
					t.Errorf("read at %v, it is %v", s.ReadAt, time.Now())
				}
				// at most one try in ten seconds, jitter aside
				if n := w.count("load") - loads; n > 3*360*10/9 || n < 100 {
					t.Errorf("%d tries in three hours", n)
				}
				loads = w.count("load")
				for range 50 {
					r.rot.Wake() // a target that was read back does not make it try more often
					synctest.Wait()
				}
				if w.count("load") != loads {
					t.Error("Wake goes past the backoff")
				}
				w.change(func() { w.down = nil })
				sleep(15 * time.Second)
				s := w.manifest()
				if s.Active("web").JWK.Kid == before.Active("web").JWK.Kid {
					t.Error("the rotation that was missed did not happen")
				}
				if n := r.seen(keyring.KeyActivated); n != 2 {
					t.Errorf("%d activations", n)
				}
				if got := r.alarms(); got != nil {
					t.Errorf("alarms %v", got)
				}
				sleep(time.Hour)
				w.wantWhole()
				r.stop()
			})
		})
	}
}

// TestHangingStore: a store that takes a call and never answers is noticed,
// and one that comes back is used again.
func TestHangingStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hang := &hanging{}
		r := w.start(func(c *rotator.Config) { hang.Store = c.Store; c.Store = hang })
		sleep(20 * time.Minute)
		hang.yes.Store(true)
		sleep(5 * time.Minute)
		if got := r.alarms(); !slices.Equal(got, []string{"store_unavailable"}) {
			t.Errorf("alarms %v", got)
		}
		if err := r.rot.Alive(); err != nil {
			t.Errorf("a loop that waits for its store counts as dead: %v", err)
		}
		hang.yes.Store(false)
		sleep(75 * time.Second)
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
		if err := r.rot.Alive(); err != nil {
			t.Error(err)
		}
		sleep(time.Hour)
		if err := r.rot.Alive(); err == nil || !strings.Contains(err.Error(), `issuer "main": its loop has not turned for 1h`) {
			t.Errorf("a loop that ended counts as alive: %v", err)
		}
	})
}
