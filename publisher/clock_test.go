package publisher_test

import (
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
)

// twoClocks is a host whose wall clock is off by a time that its boot clock
// does not follow: the time of the test is the right one.
type twoClocks struct{ off atomic.Int64 }

func (c *twoClocks) set(off time.Duration) { c.off.Store(int64(off)) }

func (c *twoClocks) read(string) publisher.Clock {
	now, off := time.Now(), time.Duration(c.off.Load())
	out := publisher.Clock{Early: now, Late: now, Away: now}
	if off < 0 {
		out.Early = now.Add(off)
	} else {
		out.Late = now.Add(off)
	}
	return out
}

func startClocked(t *testing.T, path string) (*harness, *twoClocks) {
	t.Helper()
	clock := &twoClocks{}
	h := start(t, publisher.Config{Interval: interval, Clock: clock.read}, fileTarget(path))
	synctest.Wait()
	return h, clock
}

// closing is a snapshot in whose set an old key stays for some time yet.
func closing(now time.Time, generation uint64, stays time.Duration, active, old keyring.JWK) *keyring.Snapshot {
	s := snapshot(now, generation, active)
	s.Keys = append(s.Keys, keyring.Key{
		JWK: old, Ring: "web", Created: now.Add(-3 * time.Hour), Activated: now.Add(-3 * time.Hour), Retired: now.Add(-2 * time.Hour),
		SignUntil: now.Add(stays - tail), Closed: now.Add(-time.Minute), Tail: keyring.Duration(tail),
	})
	return s
}

// A wall clock that was set a year ahead takes nothing away, withdraws nothing,
// and does not keep a newer set from coming.
func TestClockAheadTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		h, clock := startClocked(t, path)
		active, old, standby := newKey(t, keyring.ES256), newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		h.accept(closing(time.Now(), 1, 10*time.Minute, active, old))
		clock.set(365 * 24 * time.Hour)
		rest(2 * interval)
		wantSet(t, path, active, old)
		h.wantCodes(t)

		next := closing(time.Now(), 2, 10*time.Minute, active, old)
		next.Keys = append(next.Keys, keyring.Key{JWK: standby, Ring: "web", Created: time.Now()})
		h.accept(next)
		wantSet(t, path, active, old, standby)
		h.wantConfirmed(t, "file", active, old, standby)

		rest(lease + tail - 2*interval) // by the boot clock it is not over
		wantSet(t, path, active, standby)
		rest(3 * interval) // and now it is, whatever the wall clock says
		wantGone(t, path)
		h.wantCodes(t, "serve_expired!")
	})
}

// A wall clock that was set back gives no time: what the boot clock ends has
// ended, and does not come back.
func TestClockBackGivesNoTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		h, clock := startClocked(t, path)
		active, old := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		s := closing(time.Now(), 1, 10*time.Minute, active, old)
		h.accept(s)
		clock.set(-time.Hour)
		rest(11 * time.Minute)
		wantSet(t, path, active, old) // withdrawn by the earlier clock
		rest(lease + tail - 11*time.Minute - interval)
		wantSet(t, path, active)
		rest(2 * interval)
		wantGone(t, path)
		clock.set(-24 * time.Hour)
		rest(2 * interval)
		h.accept(s)
		wantGone(t, path)
		h.wantCodes(t, "serve_expired!")
	})
}

// The endpoint answers 503 by the later clock, whichever that is.
func TestEndpointEndsByTheLaterClock(t *testing.T) {
	clock := &twoClocks{}
	s := startServed(t, publisher.Config{Clock: clock.read}, nil, httpTarget("endpoint", "/keys", keyring.ViewAll))
	s.Accept("main", snapshot(time.Now(), 1, newKey(t, keyring.ES256)))
	answers := func(want int) {
		t.Helper()
		eventually(t, http.StatusText(want), func() bool {
			resp, _ := s.get(t, http.MethodGet, "/keys")
			return resp.StatusCode == want
		})
	}
	answers(http.StatusOK)
	clock.set(lease + tail + time.Second)
	answers(http.StatusServiceUnavailable)
	clock.set(-time.Hour)
	answers(http.StatusOK)
}
