package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
)

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		old := w.mustPick("ES256")
		next := w.AddStandby(keyring.ES256)
		synctest.Wait()
		if got := w.Source.Tries(); !slices.Equal(got, []string{old, next.JWK.Kid}) {
			t.Fatalf("loaded %q, want the active key and then the standby, ahead of its turn", got)
		}
		if got := w.mustPick("ES256"); got != old {
			t.Fatalf("signed by %q: a standby never signs (I4)", got)
		}
		w.Source.Fail(next.JWK.Kid, keyring.ErrUnavailable) // an outage at the moment of activation costs nothing
		w.Promote(next.JWK.Kid)
		if got := w.mustPick("ES256"); got != next.JWK.Kid {
			t.Errorf("signed by %q after the rotation", got)
		}
		if w.h.issuers["main"].loaded[old] == nil {
			t.Error("the retired half is gone before its sign_until")
		}
		w.Change(func(s *keyring.Snapshot) { s.Key(old).Closed = time.Now() })
		if w.h.issuers["main"].loaded[old] != nil {
			t.Error("the half of a closed key is still in memory")
		}
		w.mustPick("ES256")
	})
}

// Design §4 rule 10: where the new half cannot be had, the previous key signs on
// within its lease, and not longer.
func TestPreviousKeySignsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		old := w.mustPick("ES256")
		next := w.NewKey("ES256", keyring.ES256, time.Now())
		w.Source.Fail(next.JWK.Kid, fmt.Errorf("read: %w", keyring.ErrUnavailable))
		w.Change(func(s *keyring.Snapshot) {
			s.Keys[0].Retired, s.Keys[0].SignUntil = time.Now(), s.Lease
			s.Keys = append(s.Keys, next)
			s.Lease = s.Lease.Add(5 * time.Second)
		})
		synctest.Wait()
		if got := w.mustPick("ES256"); got != old {
			t.Errorf("signed by %q, want the previous key", got)
		}
		if got := codes(w.h.Alarms(time.Now())); got != "key_unavailable fatal=false" {
			t.Errorf("alarms %s", got)
		}
		if got := w.fatal(); len(got) != 0 {
			t.Errorf("not ready although it signs: %s", codes(got))
		}
		time.Sleep(time.Until(w.Snap.Keys[0].SignUntil))
		_, prob := w.pick("ES256")
		if prob == nil {
			t.Errorf("the previous key signed past its sign_until: %v", prob)
		}
		synctest.Wait()
		if w.h.issuers["main"].loaded[old] != nil {
			t.Error("the half of a retired key is in memory past its sign_until")
		}
		if got := codes(w.fatal()); got != "key_not_loaded fatal=true" {
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
				next := w.NewKey("ES256", keyring.ES256, time.Now())
				w.Source.Fail(next.JWK.Kid, tc.err)
				old := &w.Snap.Keys[0]
				old.Retired, old.SignUntil = time.Now().Add(-time.Minute), time.Now().Add(tc.left)
				kid := old.JWK.Kid
				w.Snap.Keys = append(w.Snap.Keys, next)
				w.start()
				synctest.Wait()
				if got := slices.Contains(w.Source.Tries(), kid); got != tc.want {
					t.Errorf("loaded the previous key: %v", got)
				}
				if !tc.want {
					return
				}
				if got := w.mustPick("ES256"); got != kid {
					t.Errorf("signed by %q, want the previous key", got)
				}
				time.Sleep(tc.left)
				if _, prob := w.pick("ES256"); prob == nil {
					t.Error("the previous key signed past its sign_until")
				}
				synctest.Wait()
				if w.h.issuers["main"].loaded[kid] != nil {
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
		first := w.mustPick("ES256")
		next := w.AddStandby(keyring.ES256)
		synctest.Wait()
		w.Promote(next.JWK.Kid)
		w.mustPick("ES256")
		w.Change(func(s *keyring.Snapshot) { s.Key(next.JWK.Kid).Revoked = time.Now() })
		_, prob := w.pick("ES256")
		w.wantCode(prob, api.NoActiveKey, "has no key yet")
		if w.h.issuers["main"].loaded[next.JWK.Kid] != nil {
			t.Error("the half of a revoked key is still in memory")
		}
		// The planner gives the turn back to the first key.
		w.Change(func(s *keyring.Snapshot) {
			k := s.Key(first)
			k.Retired, k.SignUntil = time.Time{}, time.Time{}
		})
		if got := w.mustPick("ES256"); got != first {
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
				kid := w.Snap.Keys[0].JWK.Kid
				w.Source.Fail(kid, tc.err)
				began := time.Now()
				w.start()
				synctest.Wait()
				if got := codes(w.h.Alarms(time.Now())); !strings.Contains(got, tc.code+" fatal=false") || !strings.Contains(got, "key_not_loaded fatal=true") {
					t.Errorf("alarms %s", got)
				}
				_, prob := w.pick("ES256")
				w.wantCode(prob, api.Unavailable, "not loaded")
				time.Sleep(10 * tc.retry)
				synctest.Wait()
				if got := len(w.Source.Tries()); got != 11 {
					t.Errorf("%d tries in ten times %s", got, tc.retry)
				}
				for _, a := range w.h.Alarms(time.Now()) {
					if a.Code == tc.code && (!a.Since.Equal(began) || a.Kid != kid) {
						t.Errorf("alarm %+v, want since %s", a, began)
					}
				}
				if got := strings.Count(w.log.String(), "not loaded"); got != 1 {
					t.Errorf("%d log lines for one cause", got)
				}
				w.Source.Fail(kid, nil)
				time.Sleep(tc.retry)
				synctest.Wait()
				w.mustPick("ES256")
				if got := w.h.Alarms(time.Now()); len(got) != 0 {
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
		for _, k := range w.Snap.Keys {
			w.Source.Fail(k.JWK.Kid, keyring.ErrUnavailable)
		}
		w.start()
		time.Sleep(time.Second)
		w.h.Accept("main", w.Snap) // a tick without news
		synctest.Wait()
		if got := w.Source.Tries(); len(got) != 1 {
			t.Errorf("%d tries at once of an unavailable store", len(got))
		}
		for _, k := range w.Snap.Keys {
			w.Source.Fail(k.JWK.Kid, nil)
		}
		w.Change(func(*keyring.Snapshot) {})
		synctest.Wait()
		// The key that failed waits for its own time, the others do not.
		if got := w.Source.Tries(); len(got) != 3 {
			t.Errorf("%d tries after a newer manifest", len(got))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for _, r := range w.Snap.Config.Rings {
			w.mustPick(r.Name)
		}
	})
}

func TestHalfOfAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		w.Source.Halfs[w.Snap.Keys[0].JWK.Kid] = keystest.NewHalf(t, keyring.ES256)
		w.start()
		synctest.Wait()
		if got := codes(w.h.Alarms(time.Now())); !strings.Contains(got, "key_mismatch") {
			t.Errorf("alarms %s", got)
		}
		if _, prob := w.pick("ES256"); prob == nil {
			t.Error("signed with a half that does not belong to the key")
		}
	})
}

func TestAcceptDropsTheOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		next := w.AddStandby(keyring.ES256)
		before := w.Snap
		synctest.Wait()
		w.Promote(next.JWK.Kid)
		w.h.Accept("main", before)
		other := w.Snap.Clone()
		other.Lineage, other.Generation = "lineage-2", other.Generation+9
		other.Keys = before.Keys
		w.h.Accept("main", other)
		if got := w.mustPick("ES256"); got != next.JWK.Kid {
			t.Errorf("signed by %q: an older snapshot, or a foreign one, was taken", got)
		}
	})
}

func TestBeforeTheFirstKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256, keyring.EdDSA)
		w.h = New(w.cfg)
		_, prob := w.pick("ES256")
		w.wantCode(prob, api.Unavailable, "has not been read")
		if got := codes(w.fatal()); got != "no_manifest fatal=true" {
			t.Errorf("ready: %s", got)
		}
		activated := w.Snap.Keys[0].Activated
		for i := range w.Snap.Keys { // the issuer is being born
			w.Snap.Keys[i].Activated, w.Snap.Keys[i].Confirmed = time.Time{}, nil
		}
		w.start()
		synctest.Wait()
		_, prob = w.pick("ES256")
		w.wantCode(prob, api.NoActiveKey, `read back at "file"`)
		if got := codes(w.fatal()); got != "no_active_key fatal=true, no_active_key fatal=true" {
			t.Errorf("ready: %s", got)
		}
		w.Change(func(s *keyring.Snapshot) { s.Keys[0].Activated = activated })
		synctest.Wait()
		w.mustPick("ES256")
		// A ring that begins is not a reason to take the others out of service.
		if got := codes(w.h.Alarms(time.Now())); got != "no_active_key fatal=false" {
			t.Errorf("alarms: %s", got)
		}
		w.Change(func(s *keyring.Snapshot) { s.Keys[1].Confirmed = map[string]time.Time{"file": time.Now()} })
		_, prob = w.pick("EdDSA")
		w.wantCode(prob, api.NoActiveKey, "may sign from")
		w.Change(func(s *keyring.Snapshot) { s.Config.Rings = s.Config.Rings[:1] })
		_, prob = w.pick("EdDSA")
		w.wantCode(prob, api.NoActiveKey, "revision 1")
		if got := w.h.Alarms(time.Now()); len(got) != 0 {
			t.Errorf("a drained ring alarms: %s", codes(got))
		}
	})
}
