package signer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// rotate adds a standby and, later, makes it active as the planner does.
func (w *world) addStandby(alg keyring.Algorithm) keyring.Key {
	k := w.newKey(string(alg), alg, time.Now())
	k.Activated = time.Time{}
	w.change(func(s *keyring.Snapshot) { s.Keys = append(s.Keys, k) })
	return k
}

func (w *world) promote(kid string) {
	w.change(func(s *keyring.Snapshot) {
		next := s.Key(kid)
		old := s.Active(next.Ring)
		old.Retired, old.SignUntil = time.Now(), s.Lease
		next.Activated = time.Now()
	})
}

func codes(alarms []keyring.Alarm) string {
	var out []string
	for _, a := range alarms {
		out = append(out, fmt.Sprintf("%s fatal=%v", a.Code, a.Fatal))
	}
	return strings.Join(out, ", ")
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		old := w.mustSign("p-ES256").Kid
		next := w.addStandby(keyring.ES256)
		synctest.Wait()
		if got := w.keys.tries(); !slices.Equal(got, []string{old, next.JWK.Kid}) {
			t.Fatalf("loaded %q, want the active key and then the standby, ahead of its turn", got)
		}
		if got := w.mustSign("p-ES256").Kid; got != old {
			t.Fatalf("signed by %q: a standby never signs (I4)", got)
		}
		w.keys.set(next.JWK.Kid, keyring.ErrUnavailable) // an outage at the moment of activation costs nothing
		w.promote(next.JWK.Kid)
		if got := w.mustSign("p-ES256").Kid; got != next.JWK.Kid {
			t.Errorf("signed by %q after the rotation", got)
		}
		if w.s.issuers["main"].loaded[old] == nil {
			t.Error("the retired half is gone before its sign_until")
		}
		w.change(func(s *keyring.Snapshot) { s.Key(old).Closed = time.Now() })
		if w.s.issuers["main"].loaded[old] != nil {
			t.Error("the half of a closed key is still in memory")
		}
		w.mustSign("p-ES256")
	})
}

// Design §4 rule 10: where the new half cannot be had, the previous key signs on
// within its lease, and not longer.
func TestPreviousKeySignsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		old := w.mustSign("p-ES256").Kid
		next := w.newKey("ES256", keyring.ES256, time.Now())
		w.keys.set(next.JWK.Kid, fmt.Errorf("read: %w", keyring.ErrUnavailable))
		w.change(func(s *keyring.Snapshot) {
			s.Keys[0].Retired, s.Keys[0].SignUntil = time.Now(), s.Lease
			s.Keys = append(s.Keys, next)
			s.Lease = s.Lease.Add(5 * time.Second)
		})
		synctest.Wait()
		if got := w.mustSign("p-ES256").Kid; got != old {
			t.Errorf("signed by %q, want the previous key", got)
		}
		if got := codes(w.s.Alarms(time.Now())); got != "key_unavailable fatal=false" {
			t.Errorf("alarms %s", got)
		}
		if got := w.s.Ready(time.Now()); len(got) != 0 {
			t.Errorf("not ready although it signs: %s", codes(got))
		}
		time.Sleep(time.Until(w.snap.Keys[0].SignUntil))
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		if prob == nil || prob.Code == api.InvalidRequest {
			t.Errorf("the previous key signed past its sign_until: %v", prob)
		}
		synctest.Wait()
		if w.s.issuers["main"].loaded[old] != nil {
			t.Error("the half of a retired key is in memory past its sign_until")
		}
		if got := codes(w.s.Ready(time.Now())); got != "key_not_loaded fatal=true" {
			t.Errorf("ready: %s", got)
		}
	})
}

// The same for a signer that starts after the rotation: it loads the previous
// key where the active one's half is gone or wrong, and there alone.
func TestPreviousKeyStepsIn(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error // of the active key's half
		left time.Duration
		want bool
	}{
		"gone":              {keyring.ErrNoKey, 5 * time.Second, true},
		"wrong":             {keyring.ErrMismatch, 5 * time.Second, true},
		"gone, and no time": {keyring.ErrNoKey, -time.Second, false},
		"there":             {nil, 5 * time.Second, false},
		"denied":            {keyring.ErrDenied, 5 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				next := w.newKey("ES256", keyring.ES256, time.Now())
				w.keys.set(next.JWK.Kid, tc.err)
				old := &w.snap.Keys[0]
				old.Retired, old.SignUntil = time.Now().Add(-time.Minute), time.Now().Add(tc.left)
				kid := old.JWK.Kid
				w.snap.Keys = append(w.snap.Keys, next)
				w.start()
				synctest.Wait()
				if got := slices.Contains(w.keys.tries(), kid); got != tc.want {
					t.Errorf("loaded the previous key: %v", got)
				}
				if !tc.want {
					return
				}
				if got := w.mustSign("p-ES256").Kid; got != kid {
					t.Errorf("signed by %q, want the previous key", got)
				}
				time.Sleep(tc.left)
				if _, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`); prob == nil {
					t.Error("the previous key signed past its sign_until")
				}
				synctest.Wait()
				if w.s.issuers["main"].loaded[kid] != nil {
					t.Error("its half is in memory past its sign_until")
				}
			})
		})
	}
}

// After a revocation that leaves nobody, the key that retired before does not step in.
func TestRevocationStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		first := w.mustSign("p-ES256").Kid
		next := w.addStandby(keyring.ES256)
		synctest.Wait()
		w.promote(next.JWK.Kid)
		w.mustSign("p-ES256")
		w.change(func(s *keyring.Snapshot) { s.Key(next.JWK.Kid).Revoked = time.Now() })
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.NoActiveKey, "has no key yet")
		if w.s.issuers["main"].loaded[next.JWK.Kid] != nil {
			t.Error("the half of a revoked key is still in memory")
		}
		// The planner gives the turn back to the first key.
		w.change(func(s *keyring.Snapshot) {
			k := s.Key(first)
			k.Retired, k.SignUntil = time.Time{}, time.Time{}
		})
		if got := w.mustSign("p-ES256").Kid; got != first {
			t.Errorf("signed by %q", got)
		}
	})
}

func TestLoadingFails(t *testing.T) {
	for name, tc := range map[string]struct {
		err   error
		code  string
		retry time.Duration
	}{
		"unavailable": {fmt.Errorf("read: %w", keyring.ErrUnavailable), "key_unavailable", 10 * time.Second},
		"odd":         {errors.New("strange"), "key_unavailable", 10 * time.Second},
		"missing":     {fmt.Errorf("read: %w", keyring.ErrNoKey), "key_missing", time.Minute},
		"mismatch":    {fmt.Errorf("read: %w", keyring.ErrMismatch), "key_mismatch", time.Minute},
		"denied":      {fmt.Errorf("read: %w", keyring.ErrDenied), "key_denied", time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				kid := w.snap.Keys[0].JWK.Kid
				w.keys.set(kid, tc.err)
				began := time.Now()
				w.start()
				synctest.Wait()
				if got := codes(w.s.Alarms(time.Now())); !strings.Contains(got, tc.code+" fatal=false") || !strings.Contains(got, "key_not_loaded fatal=true") {
					t.Errorf("alarms %s", got)
				}
				_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
				w.wantCode(prob, api.Unavailable, "not loaded")
				time.Sleep(10 * tc.retry)
				synctest.Wait()
				if got := len(w.keys.tries()); got != 11 {
					t.Errorf("%d tries in ten times %s", got, tc.retry)
				}
				for _, a := range w.s.Alarms(time.Now()) {
					if a.Code == tc.code && (!a.Since.Equal(began) || a.Kid != kid) {
						t.Errorf("alarm %+v, want since %s", a, began)
					}
				}
				if got := strings.Count(w.log.String(), "not loaded"); got != 1 {
					t.Errorf("%d log lines for one cause", got)
				}
				w.keys.set(kid, nil)
				time.Sleep(tc.retry)
				synctest.Wait()
				w.mustSign("p-ES256")
				if got := w.s.Alarms(time.Now()); len(got) != 0 {
					t.Errorf("alarms %s", codes(got))
				}
			})
		})
	}
}

// One cause, one try in ten seconds, however many keys wait; a newer manifest
// shows that the store answers again.
func TestOneTryPerCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256, keyring.ES384, keyring.EdDSA)
		for _, k := range w.snap.Keys {
			w.keys.set(k.JWK.Kid, keyring.ErrUnavailable)
		}
		w.start()
		time.Sleep(time.Second)
		w.s.Accept("main", w.snap) // a tick without news
		synctest.Wait()
		if got := w.keys.tries(); len(got) != 1 {
			t.Errorf("%d tries at once of an unavailable store", len(got))
		}
		for _, k := range w.snap.Keys {
			w.keys.set(k.JWK.Kid, nil)
		}
		w.change(func(*keyring.Snapshot) {})
		synctest.Wait()
		// The key that failed waits for its own time, the others do not.
		if got := w.keys.tries(); len(got) != 3 {
			t.Errorf("%d tries after a newer manifest", len(got))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, p := range w.cfg.Profiles {
			w.mustSign(p.Name)
		}
	})
}

func TestHalfOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		w.keys.halfs[w.snap.Keys[0].JWK.Kid] = newHalf(t, keyring.ES256)
		w.start()
		synctest.Wait()
		if got := codes(w.s.Alarms(time.Now())); !strings.Contains(got, "key_mismatch") {
			t.Errorf("alarms %s", got)
		}
		if _, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`); prob == nil {
			t.Error("signed with a half that does not belong to the key")
		}
	})
}

func TestAcceptDropsTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		next := w.addStandby(keyring.ES256)
		before := w.snap
		synctest.Wait()
		w.promote(next.JWK.Kid)
		w.s.Accept("main", before)
		other := w.snap.Clone()
		other.Lineage, other.Generation = "lineage-2", other.Generation+9
		other.Keys = before.Keys
		w.s.Accept("main", other)
		if got := w.mustSign("p-ES256").Kid; got != next.JWK.Kid {
			t.Errorf("signed by %q: an older snapshot, or a foreign one, was taken", got)
		}
	})
}

func TestBeforeTheFirstKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256, keyring.EdDSA)
		s, err := New(w.cfg)
		if err != nil {
			t.Fatal(err)
		}
		w.s = s
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.Unavailable, "has not been read")
		if got := codes(s.Ready(time.Now())); got != "no_manifest fatal=true" {
			t.Errorf("ready: %s", got)
		}
		activated := w.snap.Keys[0].Activated
		for i := range w.snap.Keys { // the issuer is being born
			w.snap.Keys[i].Activated, w.snap.Keys[i].Confirmed = time.Time{}, nil
		}
		w.start()
		synctest.Wait()
		_, prob = w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.NoActiveKey, `read back at "file"`)
		if got := codes(w.s.Ready(time.Now())); got != "no_active_key fatal=true, no_active_key fatal=true" {
			t.Errorf("ready: %s", got)
		}
		w.change(func(s *keyring.Snapshot) { s.Keys[0].Activated = activated })
		synctest.Wait()
		w.mustSign("p-ES256")
		// A ring that begins is not a reason to take the others out of service.
		if got := codes(w.s.Alarms(time.Now())); got != "no_active_key fatal=false" {
			t.Errorf("alarms: %s", got)
		}
		w.change(func(s *keyring.Snapshot) { s.Keys[1].Confirmed = map[string]time.Time{"file": time.Now()} })
		_, prob = w.ask(`{"profile":"p-EdDSA","subject":"u"}`)
		w.wantCode(prob, api.NoActiveKey, "may sign from")
		w.change(func(s *keyring.Snapshot) { s.Config.Rings = s.Config.Rings[:1] })
		_, prob = w.ask(`{"profile":"p-EdDSA","subject":"u"}`)
		w.wantCode(prob, api.NoActiveKey, "revision 1")
		if got := w.s.Alarms(time.Now()); len(got) != 0 {
			t.Errorf("a drained ring alarms: %s", codes(got))
		}
	})
}

// Whatever is accepted while tokens are signed: each is signed by a key that
// was active when it was asked for or later, and verifies.
func TestAcceptWhileSigning(t *testing.T) {
	w := newWorld(t, keyring.EdDSA).start().ready()
	kids := []string{w.snap.Keys[0].JWK.Kid}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, prob := w.ask(`{"profile":"p-EdDSA","subject":"u"}`); prob != nil {
					t.Errorf("sign: %v", prob)
					return
				}
				w.s.Alarms(time.Now())
			}
		})
	}
	for range 20 {
		next := w.addStandby(keyring.EdDSA)
		kids = append(kids, next.JWK.Kid)
		if err := w.s.SetProfiles(w.cfg.Profiles); err != nil {
			t.Error(err)
		}
		w.eventually("loaded", func() bool { return slices.Contains(w.keys.tries(), next.JWK.Kid) })
		w.promote(next.JWK.Kid)
	}
	close(stop)
	wg.Wait()
	for _, rec := range w.rec.all() {
		if !slices.Contains(kids, rec.Kid) {
			t.Fatalf("signed by %q", rec.Kid)
		}
	}
	if got := w.mustSign("p-EdDSA").Kid; got != kids[len(kids)-1] {
		t.Errorf("signed by %q, want the newest", got)
	}
}
