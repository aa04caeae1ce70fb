package keys

import (
	"crypto/ecdsa"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
)

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		w.mustPick("ES256")
		time.Sleep(9*time.Hour - time.Nanosecond)
		w.mustPick("ES256")
		time.Sleep(time.Nanosecond)
		_, prob := w.pick("ES256")
		w.wantCode(prob, api.SigningLapsed, "ended at")
		if got := w.fatal(); len(got) != 1 || got[0].Code != "signing_lapsed" || got[0].Since != w.Snap.Lease {
			t.Errorf("Ready = %+v", got)
		}
		w.Change(func(s *keyring.Snapshot) { s.Lease = time.Now().Add(9 * time.Hour) })
		w.mustPick("ES256")

		// B + R + sync_interval + E is as far as right clocks can set it.
		w.Change(func(s *keyring.Snapshot) { s.Lease = time.Now().Add(9*time.Hour + 20*time.Second) })
		w.mustPick("ES256")
		w.Change(func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(time.Nanosecond) })
		_, prob = w.pick("ES256")
		w.wantCode(prob, api.SigningLapsed, "clock fault")
	})
}

// A moment reads the later clock once for each issuer, and holds every lease
// against both clocks.
func TestMoment(t *testing.T) {
	now := time.Now()
	reads := 0
	snap := keystest.New(t).Snap
	snap.Lease = now.Add(time.Minute)
	v := &View{Issuer: "main", Snapshot: snap, late: func() time.Time { reads++; return now.Add(30 * time.Second) }}
	other := &View{Issuer: "other", Snapshot: snap, late: func() time.Time { reads++; return now.Add(time.Hour) }}
	m := Moment{now: now, views: Views{"main": v, "other": other}}
	for _, tc := range []struct {
		until time.Duration
		code  api.Code
	}{{time.Minute, ""}, {31 * time.Second, ""}, {30 * time.Second, api.SigningLapsed}, {0, api.SigningLapsed}} {
		prob := m.Lapsed(v, "k", now.Add(tc.until))
		if (prob == nil) != (tc.code == "") || prob != nil && prob.Code != tc.code {
			t.Errorf("a lease of %s: %v", tc.until, prob)
		}
	}
	if reads != 1 {
		t.Errorf("the later clock was read %d times", reads)
	}
	if prob := m.Lapsed(other, "k", now.Add(time.Minute)); prob == nil || reads != 2 {
		t.Errorf("another issuer, whose clock is later: %v, %d readings", prob, reads)
	}
}

// What was accepted after a key was picked holds, of that key alone.
func TestLapsedByThePresentView(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(s *keyring.Snapshot)
		want   api.Code
	}{
		"nothing":         {func(*keyring.Snapshot) {}, ""},
		"revoked":         {func(s *keyring.Snapshot) { s.Keys[0].Revoked = time.Now() }, api.NoActiveKey},
		"another revoked": {func(s *keyring.Snapshot) { s.Keys[1].Revoked = time.Now() }, ""},
		"closed": {func(s *keyring.Snapshot) {
			s.Keys[0].Retired, s.Keys[0].SignUntil, s.Keys[0].Closed = time.Now(), s.Lease, time.Now()
		}, api.NoActiveKey},
		"gone":            {func(s *keyring.Snapshot) { s.Keys = s.Keys[1:] }, api.NoActiveKey},
		"rotated":         {func(s *keyring.Snapshot) { s.Keys[0].Retired, s.Keys[0].SignUntil = time.Now(), s.Lease }, ""},
		"lease shortened": {func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(-time.Hour) }, api.SigningLapsed},
		"lease renewed":   {func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(time.Second) }, ""},
		"lease too long":  {func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(24 * time.Hour) }, api.SigningLapsed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256, keyring.EdDSA).start()
				synctest.Wait()
				v := w.h.Views()["main"]
				key, prob := v.Pick("ES256", time.Now())
				if prob != nil {
					t.Fatal(prob)
				}
				w.Change(tc.change)
				m := w.h.At(time.Now())
				prob = m.Lapsed(v, key.Kid(), key.Until)
				if (prob == nil) != (tc.want == "") || prob != nil && prob.Code != tc.want {
					t.Errorf("%v, want %s", prob, tc.want)
				}
			})
		})
	}
}

// No private half, in any encoding, gets anywhere: log, alarms, printed values.
func TestRedaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256, keyring.RS256)
		canary := w.Source.Halfs[w.Snap.Keys[0].JWK.Kid].(keystest.Half).Key.(*ecdsa.PrivateKey)
		other := keystest.NewHalf(t, keyring.ES256) // does not match: a fault that is talked about
		w.Source.Halfs[w.Snap.Keys[1].JWK.Kid] = other
		w.start()
		synctest.Wait()
		if n := len(w.h.Alarms(time.Now())); n != 2 {
			t.Fatalf("%d alarms", n)
		}
		v := w.h.Views()["main"]
		out := fmt.Sprintf("%v %+v %#v", v, v, w.h.issuers["main"].loaded)
		for _, r := range v.rings {
			out += fmt.Sprintf("%v %+v %#v %v %+v %#v", r, r, r, r.keys, r.keys, r.keys)
		}
		out += w.log.String() + fmt.Sprint(w.h.Alarms(time.Now()))
		for _, key := range []*ecdsa.PrivateKey{canary, other.(*ecdsa.PrivateKey)} {
			for _, secret := range append(keystest.Spellings(t, key), keystest.Canary) {
				if strings.Contains(out, secret) {
					t.Errorf("the private half is in the output as %q", secret)
				}
			}
		}
	})
}
