package signer

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Whatever is accepted while tokens are signed: each is signed by a key that
// was active when it was asked for or later, and verifies.
func TestAcceptWhileSigning(t *testing.T) {
	w := newWorld(t, keyring.EdDSA).start().ready()
	kids := []string{w.Snap.Keys[0].JWK.Kid}
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
		next := w.AddStandby(keyring.EdDSA)
		kids = append(kids, next.JWK.Kid)
		if err := w.s.SetProfiles(w.cfg.Profiles); err != nil {
			t.Error(err)
		}
		w.eventually("loaded", func() bool { return slices.Contains(w.Source.Tries(), next.JWK.Kid) })
		w.Promote(next.JWK.Kid)
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
