package rotator_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

func TestFoundedByOneReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.startBlind()
		sleep(time.Minute)
		if s := w.manifest(); s == nil || len(s.Keys) != 1 || s.Active("web") != nil {
			t.Fatalf("before the read-back: %+v", s)
		}
		if got := r.alarms(); !slices.Equal(got, []string{"no_active_key"}) {
			t.Errorf("alarms %v", got)
		}
		r.blinded(false)
		sleep(time.Minute)
		w.wantWhole()
		if s := r.rot.Status("main"); s.Snapshot == nil || s.Snapshot.Generation != w.manifest().Generation || !s.ReadAt.Equal(time.Now()) || s.Alarms != nil {
			t.Errorf("status %+v", s)
		}
		if s := r.rot.Status("nobody"); s.Snapshot != nil || s.Alarms != nil {
			t.Errorf("status of nobody: %+v", s)
		}
		r.stop()
	})
}

// TestFoundedByThree: of three replicas that start at once on an empty store
// one founds, all go on with its lineage, and what the losers made is swept.
func TestFoundedByThree(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var all []*replica
			for range 3 {
				all = append(all, w.start())
			}
			sleep(30 * time.Minute)
			w.wantWhole()
			for i, r := range all {
				if s := r.rot.Status("main").Snapshot; s == nil || s.Lineage != w.lineages[0] {
					t.Errorf("replica %d has %+v", i, s)
				}
				r.stop()
			}
		})
	}
}

// TestRotatesOnSchedule over simulated days, with one replica and with three:
// one rotation an hour, at the full hour, and every old half is destroyed.
func TestRotatesOnSchedule(t *testing.T) {
	for _, n := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			var all []*replica
			for range n {
				all = append(all, w.start())
			}
			sleep(30 * time.Minute)
			last := w.manifest().Active("web").JWK.Kid
			for hour := range 30 {
				sleep(time.Hour) // to half past
				s := w.manifest()
				k := s.Active("web")
				if k.JWK.Kid == last {
					t.Fatalf("hour %d: no rotation", hour)
				}
				if late := k.Activated.Sub(time.Now().Truncate(time.Hour)); late < 0 || late > time.Second {
					t.Errorf("hour %d: rotated %v after the full hour", hour, late)
				}
				if old := s.Key(last); old == nil || old.State(time.Now()) != keyring.Closed && old.State(time.Now()) != keyring.Retired {
					t.Errorf("hour %d: the old key is %+v", hour, old)
				}
				last = k.JWK.Kid
			}
			w.wantWhole()
			activations, conflicts := 0, 0
			for _, r := range all {
				if got := r.alarms(); got != nil {
					t.Errorf("alarms %v", got)
				}
				activations += r.seen(keyring.KeyActivated)
				conflicts += len(r.errors)
				r.stop()
			}
			if activations != 31 || conflicts != 0 {
				t.Errorf("%d activations, %d errors (a lost race is none)", activations, conflicts)
			}
		})
	}
}

// TestDeadline: the loop wakes at the instant of a rotation, not at the next
// tick, and a read-back that Wake tells of is recorded at once.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.startBlind()
		sleep(time.Second)
		r.blinded(false)
		sleep(time.Second)
		if w.manifest().Active("web") != nil {
			t.Fatal("looked without being told")
		}
		r.rot.Wake()
		synctest.Wait()
		if w.manifest().Active("web") == nil {
			t.Error("Wake did not make it look")
		}
		r.rot.Wake()
		r.rot.Wake() // one too many does no harm
		sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		if k := w.manifest().Active("web"); !k.Activated.Equal(time.Now()) {
			t.Errorf("active since %v, it is %v", k.Activated, time.Now())
		}
		r.stop()
	})
}

// TestOtherRolesNeverWrite: they read, hand on, and change nothing.
func TestOtherRolesNeverWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		reader := w.start(func(c *rotator.Config) { c.Advance = false })
		sleep(5 * time.Minute)
		if w.doc != nil || w.count("save")+w.count("create")+w.count("destroy") != 0 {
			t.Fatal("it founded an issuer")
		}
		if got := reader.alarms(); !slices.Equal(got, []string{"store_unavailable"}) {
			t.Errorf("alarms %v", got)
		}
		writer := w.start()
		sleep(3 * time.Hour)
		if len(reader.events) != 0 {
			t.Errorf("it wrote: %v", reader.events)
		}
		if got := reader.rot.Status("main").Snapshot.Generation; got != w.manifest().Generation {
			t.Errorf("it has generation %d of %d", got, w.manifest().Generation)
		}
		if got := reader.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		if len(reader.accepted) < 10 {
			t.Errorf("it handed on %d snapshots", len(reader.accepted))
		}
		writer.stop()
		saves := w.count("save") + w.count("create") + w.count("destroy")
		sleep(5 * time.Hour)
		if w.count("save")+w.count("create")+w.count("destroy") != saves {
			t.Error("alone, it writes")
		}
		if _, err := reader.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); err == nil {
			t.Error("it rotates")
		}
		reader.stop()
	})
}

// TestWaitingForATarget: activation waits, an alarm says so, and it comes by itself.
func TestWaitingForATarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(10 * time.Minute)
		active := w.manifest().Active("web").JWK.Kid
		sleep(49 * time.Minute)
		r.blinded(true) // the next standby is not seen
		sleep(30 * time.Minute)
		if w.manifest().Active("web").JWK.Kid == active {
			t.Fatal("no rotation")
		}
		active = w.manifest().Active("web").JWK.Kid
		if w.manifest().Standby("web").Confirmed != nil {
			t.Fatal("the test came too late")
		}
		sleep(40 * time.Minute) // nine minutes late
		if got := r.alarms(); !slices.Equal(got, []string{"rotation_overdue"}) {
			t.Errorf("alarms %v", got)
		}
		since := r.rot.Alarms()[0].Since
		sleep(30 * time.Minute)
		if again := r.rot.Alarms(); len(again) != 1 || !again[0].Since.Equal(since) {
			t.Errorf("alarms %v, the first since %v", again, since)
		}
		if w.manifest().Active("web").JWK.Kid != active {
			t.Error("rotated to a key that no target shows")
		}
		r.blinded(false)
		sleep(17 * time.Minute)
		if got := r.alarms(); got != nil || w.manifest().Active("web").JWK.Kid == active {
			t.Errorf("alarms %v, active %s", got, w.manifest().Active("web").JWK.Kid)
		}
		w.wantWhole()
		r.stop()
	})
}

// TestFoundedWhileLooking: a replica that found no manifest and then halves
// looks again before it says that one was lost.
func TestFoundedWhileLooking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		other := keyring.Plan(nil, keyring.Input{Now: time.Now(), WriteID: "w", Lineage: "other", File: hourly()}).Next
		doc, err := keyring.Encode(other)
		if err != nil {
			t.Fatal(err)
		}
		w.hook = func(op string, _ *replica) fault {
			if op == "list" && w.doc == nil {
				w.checkWrite(other)
				w.doc, w.version, w.halves["theirs"] = doc, 1, true
			}
			return works
		}
		r := w.start()
		synctest.Wait() // no second look is needed
		if got := r.alarms(); got != nil || w.manifest().Lineage != "other" {
			t.Errorf("alarms %v, lineage %s", got, w.manifest().Lineage)
		}
		sleep(20 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}
