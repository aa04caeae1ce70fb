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

type alarm = keyring.Alarm

func (w *world) copyOfHalves() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]bool{}
	for kid := range w.halves {
		out[kid] = true
	}
	return out
}

// restore puts the store back to an older copy, halves included.
func (w *world) restore(s stored, halves map[string]bool) {
	w.put(s)
	w.change(func() {
		for kid := range w.halves {
			w.lost[kid] = w.lost[kid] || !halves[kid]
		}
		w.halves = halves
	})
}

// TestAccept: a store that was put back to an older copy is frozen by whoever
// has seen more, keeps everybody from planning, one without a mark included,
// and goes on after keyturn accept where the mark is highest. What was revoked
// stays revoked, and what was destroyed is destroyed again. Faults 14, 43.
func TestAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t), t.TempDir()
		a := w.start(in(dir))
		sleep(70 * time.Minute)
		older, halves := w.keep(), w.copyOfHalves()
		revoked := w.manifest().Active("web").JWK.Kid
		if _, err := a.rot.Command(t.Context(), keyring.Command{Revoke: []string{revoked}}, false); err != nil {
			t.Fatal(err)
		}
		sleep(2 * time.Hour)
		seen, version := w.manifest(), w.keep().version
		w.restore(older, halves)
		sleep(2 * time.Minute) // it has been read once
		late := w.start()      // has no mark, and would take the old copy for the newest
		sleep(5 * time.Minute)
		for _, r := range []*replica{a, late} {
			if got := r.alarms(); !slices.Equal(got, []string{"frozen"}) {
				t.Errorf("alarms %v", got)
			}
		}
		writes := w.writes()
		sleep(3 * time.Hour)
		if w.writes() != writes {
			t.Error("somebody writes over a frozen manifest")
		}
		var low *keyring.LowerMarkError
		if _, err := late.rot.Accept(t.Context(), "main", false, false); !errors.As(err, &low) {
			t.Errorf("a replica without a mark: %v", err)
		}
		dry, err := a.rot.Accept(t.Context(), "main", true, false)
		if err != nil || w.writes() != writes {
			t.Errorf("a dry run: %v, %d writes", err, w.writes()-writes)
		}
		got, err := a.rot.Accept(t.Context(), "main", false, false)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(dry.Destroyed, got.Destroyed) || !slices.Contains(got.Destroyed, revoked) {
			t.Errorf("destroys %v, said %v", got.Destroyed, dry.Destroyed)
		}
		if n := w.keep().version; n <= version {
			t.Errorf("the store's version is %d and was %d before: a write of then would fit", n, version)
		}
		sleep(time.Minute)
		if s := w.manifest(); s.Generation <= seen.Generation || s.Frozen != nil || s.Key(revoked).Revoked.IsZero() || w.copyOfHalves()[revoked] {
			t.Errorf("generation %d after %d, %+v", s.Generation, seen.Generation, s.Key(revoked))
		}
		if _, err := a.rot.Accept(t.Context(), "main", false, false); !errors.Is(err, keyring.ErrNotFrozen) {
			t.Errorf("again: %v", err)
		}
		sleep(4 * time.Hour)
		w.wantWhole()
		for _, r := range []*replica{a, late} {
			if got := r.alarms(); got != nil {
				t.Errorf("alarms %v", got)
			}
			r.stop()
		}
	})
}

// TestAcceptOverNothingAndOverDamage: the same where the manifest is gone or
// cannot be read.
func TestAcceptOverNothingAndOverDamage(t *testing.T) {
	for _, tc := range []struct {
		name string
		put  func(now stored) stored
	}{
		{"none", func(stored) stored { return stored{} }},
		{"corrupt", func(now stored) stored { return stored{now.doc[:80], now.version} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				r := w.start()
				sleep(70 * time.Minute)
				now := w.keep()
				w.put(tc.put(now))
				sleep(5 * time.Minute)
				if _, err := r.rot.Accept(t.Context(), "main", false, false); err != nil {
					t.Fatal(err)
				}
				if n := w.keep().version; n <= now.version {
					t.Errorf("version %d after %d", n, now.version)
				}
				sleep(4 * time.Hour)
				w.wantWhole()
				if got := r.alarms(); got != nil {
					t.Errorf("alarms %v", got)
				}
				r.stop()
			})
		})
	}
}

func TestAcceptIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		reader := w.start(func(c *rotator.Config) { c.Advance = false })
		sleep(20 * time.Minute)
		if _, err := r.rot.Accept(t.Context(), "nobody", false, false); !errors.Is(err, rotator.ErrUnknownIssuer) {
			t.Errorf("%v", err)
		}
		if _, err := reader.rot.Accept(t.Context(), "main", false, false); !errors.Is(err, keyring.ErrUnavailable) || !strings.Contains(err.Error(), "role rotator") {
			t.Errorf("%v", err)
		}
		w.change(func() { w.down = errInjected })
		if _, err := r.rot.Accept(t.Context(), "main", false, false); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		r.stop()
		reader.stop()
	})
}

// TestPublishedSetWithoutAManifest: one was lost. Fault 43.
func TestPublishedSetWithoutAManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start(func(c *rotator.Config) {
			c.Published = func(_ context.Context, issuer string) (keyring.Mark, string, error) {
				return keyring.Mark{Lineage: "old", Generation: 41}, "/srv/" + issuer + ".json", nil
			}
		})
		sleep(time.Second)
		fresh := w.start() // sees no such set, and must not found the issuer anew
		sleep(time.Hour)
		if f := w.manifest().Frozen; f == nil || f.Lineage != "old" || f.Generation != 41 || !strings.Contains(f.Reason, "/srv/main.json") || w.count("create") != 0 {
			t.Errorf("frozen by %+v", f)
		}
		r.stop()
		fresh.stop()
	})
}

// TestDamagedStandby is replaced, and the ring rotates on time with the new
// one. Fault 17.
func TestDamagedStandby(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(10 * time.Minute)
		bad := w.manifest().Standby("web").JWK.Kid
		w.change(func() { delete(w.halves, bad); w.lost[bad] = true })
		sleep(10 * time.Minute) // the custody is listed from time to time
		s := w.manifest()
		if next := s.Standby("web"); next == nil || next.JWK.Kid == bad {
			t.Fatalf("standby %v", next)
		}
		next := s.Standby("web").JWK.Kid
		sleep(50 * time.Minute)
		if got := w.manifest().Active("web").JWK.Kid; got != next {
			t.Errorf("%s signs, want %s", got, next)
		}
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestRevokeAndSignNow: every key of the ring is gone, and its successor signs
// in the same command, though nobody can know it yet.
func TestRevokeAndSignNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(70 * time.Minute)
		before := w.manifest()
		got, err := r.rot.Command(t.Context(), keyring.Command{RevokeRing: "web", Force: true}, false)
		if err != nil {
			t.Fatal(err)
		}
		next := got.After.Active("web")
		if next == nil || next.Forced.IsZero() || before.Key(next.JWK.Kid) != nil {
			t.Fatalf("%+v signs", next)
		}
		e := keyring.Exposed(got.Before, got.After, time.Now())
		if len(e.Revoked) != 3 || len(e.Successors) != 1 || e.Successors[0].Kind != keyring.UnprovenStandby {
			t.Errorf("exposure %+v", e)
		}
		sleep(3 * time.Hour)
		w.wantWhole()
		r.stop()
	})
}

// TestRevokeWhoseKeyCannotBeMade: the revocation stands, and says that nobody signs.
func TestRevokeWhoseKeyCannotBeMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(70 * time.Minute)
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "create" {
					return fails
				}
				return works
			}
		})
		got, err := r.rot.Command(t.Context(), keyring.Command{RevokeRing: "web", Force: true}, false)
		if err != nil || got.After.Active("web") != nil {
			t.Fatalf("%v, %v signs", err, got.After.Active("web"))
		}
		if e := keyring.Exposed(got.Before, got.After, time.Now()); len(e.Revoked) != 3 || e.Successors[0].Kind != keyring.NobodySigns {
			t.Errorf("exposure %+v", e)
		}
		w.change(func() { w.hook = nil })
		sleep(time.Hour)
		w.wantWhole()
		r.stop()
	})
}
