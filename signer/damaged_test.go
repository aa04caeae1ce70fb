package signer

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// A half that is missing or wrong is told to the rotator at once; one that the
// store keeps back says nothing about the half.
func TestDamagedHalvesAreTold(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		damaged bool
	}{
		"missing":     {fmt.Errorf("read: %w", keyring.ErrNoKey), true},
		"wrong":       {fmt.Errorf("read: %w", keyring.ErrMismatch), true},
		"denied":      {keyring.ErrDenied, false},
		"unavailable": {keyring.ErrUnavailable, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				var woken atomic.Int64
				w.cfg.Wake = func() { woken.Add(1) }
				w.start()
				synctest.Wait()
				if d := w.s.Damaged("main"); len(d) > 0 || woken.Load() > 0 {
					t.Fatalf("damaged %q, woken %d: nothing is", d, woken.Load())
				}
				kids := []string{w.addBroken(tc.err), w.addBroken(tc.err)}
				slices.Sort(kids)
				if !tc.damaged {
					kids = nil
				}
				synctest.Wait()
				if got := w.s.Damaged("main"); !slices.Equal(got, kids) {
					t.Errorf("damaged %q, want %q", got, kids)
				}
				time.Sleep(5 * time.Minute) // tried again, and nothing new found
				synctest.Wait()
				if got := woken.Load(); got != int64(len(kids)) {
					t.Errorf("woken %d times for %d damaged halves", got, len(kids))
				}
				for _, kid := range kids {
					w.keys.set(kid, nil)
				}
				time.Sleep(2 * missingAfter)
				synctest.Wait()
				if got := w.s.Damaged("main"); len(got) > 0 {
					t.Errorf("damaged %q although the halves are back", got)
				}
			})
		})
	}
	if got := newWorld(t, keyring.ES256).start().s.Damaged("nobody"); len(got) > 0 {
		t.Errorf("unknown issuer: %q", got)
	}
}

// addBroken adds a standby whose half cannot be had.
func (w *world) addBroken(err error) string {
	k := w.newKey("ES256", keyring.ES256, time.Now())
	k.Activated = time.Time{}
	w.keys.set(k.JWK.Kid, err)
	w.change(func(s *keyring.Snapshot) { s.Keys = append(s.Keys, k) })
	return k.JWK.Kid
}

// A damaged key that retires could be chosen by a rollback: it stays known as
// damaged until it is whole, or can never sign again.
func TestDamagedKeyRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		broken := w.addBroken(keyring.ErrNoKey)
		next := w.addStandby(keyring.ES256)
		synctest.Wait()
		w.promote(broken)
		w.promote(next.JWK.Kid)
		synctest.Wait()
		if got := w.s.Damaged("main"); !slices.Equal(got, []string{broken}) {
			t.Errorf("damaged %q, want the retired key %q", got, broken)
		}
		w.change(func(s *keyring.Snapshot) { s.Key(broken).Closed = time.Now() })
		if got := w.s.Damaged("main"); len(got) > 0 {
			t.Errorf("damaged %q, and it is closed", got)
		}
	})
}

// What waits for a store that was away is tried at once when it may be back; a
// half that is missing is not there because somebody logged in.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		kid := w.snap.Keys[0].JWK.Kid
		w.keys.set(kid, keyring.ErrUnavailable)
		w.start()
		missing := w.addBroken(keyring.ErrNoKey)
		synctest.Wait()
		w.keys.set(kid, nil)
		w.s.Retry()
		synctest.Wait()
		w.mustSign("p-ES256")
		before := len(w.keys.tries())
		w.s.Retry()
		synctest.Wait()
		if tries := w.keys.tries()[before:]; slices.Contains(tries, missing) {
			t.Errorf("tries after a second Retry: %q", tries)
		}
	})
}

// A lease ends by the later of the two clocks: setting the wall clock back
// gives no time.
func TestLeaseEndsByTheLaterClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		var ahead atomic.Int64
		w.cfg.Late = func(issuer string) time.Time {
			if issuer != "main" {
				t.Errorf("asked for issuer %q", issuer)
			}
			return time.Now().Add(time.Duration(ahead.Load()))
		}
		w.start()
		synctest.Wait()
		left := time.Until(w.snap.Lease)
		ahead.Store(int64(left - time.Second))
		w.mustSign("p-ES256")
		ahead.Store(int64(left))
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "boot clock")
		ready := w.s.Ready(time.Now())
		if got := codes(ready); got != "signing_lapsed fatal=true" || !strings.Contains(ready[0].Message, "check NTP") {
			t.Errorf("ready: %s", got)
		}
		// Between the first look and the release the clocks are read again.
		ahead.Store(0)
		w.rec.mu.Lock()
		w.rec.before = func() error { ahead.Store(int64(left)); return nil }
		w.rec.mu.Unlock()
		_, prob = w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "boot clock")
	})
}
