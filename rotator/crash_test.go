package rotator_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// operations are the numbers of those in the first hours of a life: all but
// most of the loads that find nothing new.
func operations(t *testing.T, life time.Duration) []int {
	t.Helper()
	var ops []string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.hook = func(op string, _ *replica) fault { ops = append(ops, op); return works }
		r := w.start()
		sleep(life)
		r.stop()
	})
	var nth []int
	for i, op := range ops {
		idle := op == "load" && i > 0 && i+1 < len(ops) && ops[i-1] == "load" && ops[i+1] == "load"
		if !idle || i%40 == 0 {
			nth = append(nth, i+1)
		}
	}
	if len(nth) < 50 {
		t.Fatalf("only %d of %d operations", len(nth), len(ops))
	}
	return nth
}

// TestCrashAnywhere kills a replica before and after each operation on the
// store in the first hours of an issuer's life, and starts another one on
// what is stored. The second process must find its way from there: one active
// key, one standby, nothing lost, nothing left over.
func TestCrashAnywhere(t *testing.T) {
	const life = 85 * time.Minute
	died := map[string]bool{}
	for _, nth := range operations(t, life) {
		for _, how := range []fault{diesBefore, diesAfter} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				n, op := 0, ""
				w.hook = func(what string, _ *replica) fault {
					if n++; n != nth {
						return works
					}
					op = what
					return how
				}
				first := w.start()
				<-first.done
				w.change(func() { w.hook = nil })
				second := w.start()
				sleep(75 * time.Minute)
				w.wantWhole()
				if got := second.alarms(); got != nil {
					t.Errorf("alarms %v", got)
				}
				if second.seen(keyring.KeyActivated) < 1 {
					t.Errorf("%d activations", second.seen(keyring.KeyActivated))
				}
				if t.Failed() {
					t.Fatalf("after operation %d, a %s (%d)", nth, op, how)
				}
				died[fmt.Sprint(op, how)] = true
				second.stop()
			})
		}
	}
	for _, op := range []string{"load", "save", "create", "destroy", "list"} {
		for _, how := range []fault{diesBefore, diesAfter} {
			if !died[fmt.Sprint(op, how)] {
				t.Errorf("nothing died at a %s (%d)", op, how)
			}
		}
	}
}

// TestErrorAnywhere: each operation fails once, without and with effect, and
// the same process goes on.
func TestErrorAnywhere(t *testing.T) {
	const life = 80 * time.Minute
	for _, nth := range operations(t, life) {
		for _, how := range []fault{fails, persists} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				n, op := 0, ""
				w.hook = func(what string, _ *replica) fault {
					if n++; n != nth {
						return works
					}
					op = what
					return how
				}
				r := w.start()
				sleep(life + 30*time.Minute)
				w.wantWhole()
				if got := r.alarms(); got != nil {
					t.Errorf("alarms %v", got)
				}
				if len(r.errors) != 1 {
					t.Errorf("metrics heard of %q", r.errors)
				}
				if t.Failed() {
					t.Fatalf("after operation %d, a %s (%d)", nth, op, how)
				}
				r.stop()
			})
		}
	}
}

// TestConflict: somebody else writes in the middle of a save. The plan is
// dropped and made again from what is stored; it is not replayed.
func TestConflict(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprint("asked=", asked), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, b := w.start(), w.start()
				sleep(50 * time.Minute)
				standby := w.manifest().Standby("web").JWK.Kid
				var err error
				if asked {
					// a second rotation gets in between the operator's plan and its save
					w.change(func() { w.beforeCAS = func() { promote(w) } })
					_, err = a.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false)
					if err == nil {
						t.Error("a rotation that somebody else did is answered as done")
					}
				} else {
					sleep(10*time.Minute - time.Second)
					w.change(func() { w.beforeCAS = func() { promote(w) } })
					sleep(10 * time.Second)
				}
				if got := w.manifest().Active("web").JWK.Kid; got != standby {
					t.Errorf("%s signs, want %s", got, standby)
				}
				if n := a.seen(keyring.KeyActivated) + b.seen(keyring.KeyActivated); n != 1 {
					t.Errorf("the replicas activated %d keys, want the first alone", n)
				}
				sleep(30 * time.Minute)
				w.wantWhole()
				a.stop()
				b.stop()
			})
		})
	}
}

// promote is a rotation by a third replica, straight into the store. The
// caller holds mu.
func promote(w *world) {
	s := w.stored()
	out := keyring.Plan(s, keyring.Input{
		Now: time.Now(), WriteID: "promoted", File: hourly(), Publishes: true, Command: keyring.Command{Rotate: "web"},
		NextRun: func(_ string, after time.Time) time.Time { return after.Add(time.Hour) },
	})
	doc, err := keyring.Encode(out.Next)
	if err != nil {
		w.t.Error(err)
	}
	w.checkWrite(out.Next)
	w.doc, w.version = doc, w.version+1
}

// TestEndlessConflict: a tick that loses every race ends, and so does the
// command that waits for it.
func TestEndlessConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "save" {
					w.version++
				}
				return works
			}
		})
		if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); err == nil {
			t.Error("rotated")
		}
		w.change(func() { w.hook = nil })
		sleep(time.Hour)
		w.wantWhole()
		r.stop()
	})
}

// TestDestroyIsRetried until it is done, and the manifest does not claim it before.
func TestDestroyIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.hook = func(op string, _ *replica) fault {
			if op == "destroy" {
				return fails
			}
			return works
		}
		r := w.start()
		sleep(3 * time.Hour)
		left := 0
		s := w.manifest()
		for i := range s.Keys {
			if k := &s.Keys[i]; !k.Closed.IsZero() {
				left++
				if !k.Destroyed.IsZero() || !w.halves[k.JWK.Kid] {
					t.Errorf("the half of %s: destroyed %v, exists %v", k.JWK.Kid, k.Destroyed, w.halves[k.JWK.Kid])
				}
			}
		}
		if left == 0 || w.count("destroy") < 60 {
			t.Fatalf("%d halves were tried %d times", left, w.count("destroy"))
		}
		w.change(func() { w.hook = nil })
		sleep(2 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}

// TestForeignCustody: what this process cannot reach is not recorded as destroyed.
func TestForeignCustody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(59 * time.Minute)
		r.stop()
		other := w.start(func(c *rotator.Config) {
			c.Halves = map[string]rotator.Halves{"transit": c.Halves["vaultkv"]}
		})
		sleep(2 * time.Hour)
		s := w.manifest()
		closed := 0
		for i := range s.Keys {
			if k := &s.Keys[i]; !k.Closed.IsZero() {
				closed++
				if !k.Destroyed.IsZero() {
					t.Errorf("the half of %s in vaultkv is recorded as destroyed", k.JWK.Kid)
				}
			}
		}
		if closed == 0 {
			t.Fatal("nothing was closed: the lease or the rotation stopped")
		}
		if !s.Lease.After(time.Now()) {
			t.Error("without the custody of a new key the lease is not renewed")
		}
		codes := map[string]bool{}
		for _, c := range other.alarms() {
			codes[c] = true
		}
		if !codes["key_not_created"] || !codes["rotation_overdue"] {
			t.Errorf("alarms %v", other.alarms())
		}
		other.stop()
	})
}
