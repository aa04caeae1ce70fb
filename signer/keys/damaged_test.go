package keys

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

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
				if d := w.h.Damaged("main"); len(d) > 0 || woken.Load() > 0 {
					t.Fatalf("damaged %q, woken %d: nothing is", d, woken.Load())
				}
				kids := []string{w.AddBroken(tc.err), w.AddBroken(tc.err)}
				slices.Sort(kids)
				if !tc.damaged {
					kids = nil
				}
				synctest.Wait()
				if got := w.h.Damaged("main"); !slices.Equal(got, kids) {
					t.Errorf("damaged %q, want %q", got, kids)
				}
				time.Sleep(5 * time.Minute) // tried again, and nothing new found
				synctest.Wait()
				if got := woken.Load(); got != int64(len(kids)) {
					t.Errorf("woken %d times for %d damaged halves", got, len(kids))
				}
				for _, kid := range kids {
					w.Source.Fail(kid, nil)
				}
				time.Sleep(2 * missingAfter)
				synctest.Wait()
				if got := w.h.Damaged("main"); len(got) > 0 {
					t.Errorf("damaged %q although the halves are back", got)
				}
			})
		})
	}
	if got := newWorld(t, keyring.ES256).start().h.Damaged("nobody"); len(got) > 0 {
		t.Errorf("unknown issuer: %q", got)
	}
}

// A damaged key that retires could be chosen by a rollback: it stays known as
// damaged until it is whole, or can never sign again.
func TestDamagedKeyRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		broken := w.AddBroken(keyring.ErrNoKey)
		next := w.AddStandby(keyring.ES256)
		synctest.Wait()
		w.Promote(broken)
		w.Promote(next.JWK.Kid)
		synctest.Wait()
		if got := w.h.Damaged("main"); !slices.Equal(got, []string{broken}) {
			t.Errorf("damaged %q, want the retired key %q", got, broken)
		}
		w.Change(func(s *keyring.Snapshot) { s.Key(broken).Closed = time.Now() })
		if got := w.h.Damaged("main"); len(got) > 0 {
			t.Errorf("damaged %q, and it is closed", got)
		}
	})
}

// What waits for a store that was away is tried at once when it may be back; a
// half that is missing is not there because somebody logged in.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		kid := w.Snap.Keys[0].JWK.Kid
		w.Source.Fail(kid, keyring.ErrUnavailable)
		w.start()
		missing := w.AddBroken(keyring.ErrNoKey)
		synctest.Wait()
		w.Source.Fail(kid, nil)
		w.h.Retry()
		synctest.Wait()
		w.mustPick("ES256")
		before := len(w.Source.Tries())
		w.h.Retry()
		synctest.Wait()
		if tries := w.Source.Tries()[before:]; slices.Contains(tries, missing) {
			t.Errorf("tries after a second Retry: %q", tries)
		}
	})
}
