package rotator_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

func TestRotateNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		before := w.manifest()
		got, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false)
		if err != nil {
			t.Fatal(err)
		}
		retired, active := turned(got, "web")
		if retired.JWK.Kid != before.Active("web").JWK.Kid || active.JWK.Kid != before.Standby("web").JWK.Kid {
			t.Errorf("retired %s, active %s", retired.JWK.Kid, active.JWK.Kid)
		}
		if now := w.manifest().Active("web"); now.JWK.Kid != active.JWK.Kid || !now.Activated.Equal(time.Now()) {
			t.Errorf("%s signs since %v", now.JWK.Kid, now.Activated)
		}
		if !retired.SignUntil.Equal(before.Lease) || !retired.Retired.Equal(time.Now()) {
			t.Errorf("retired: %+v", retired)
		}
		// The schedule counts from here.
		sleep(39 * time.Minute)
		if w.manifest().Active("web").JWK.Kid != active.JWK.Kid {
			t.Error("rotated twice")
		}
		w.wantWhole()
		r.stop()
	})
}

// TestDryRun says what a rotation would do, and does nothing.
func TestDryRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20*time.Minute + 30*time.Second)
		before, writes, events := w.manifest(), w.writes(), len(r.events)
		got, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, true)
		if err != nil {
			t.Fatal(err)
		}
		retired, active := turned(got, "web")
		if retired.JWK.Kid != before.Active("web").JWK.Kid || active.JWK.Kid != before.Standby("web").JWK.Kid {
			t.Errorf("retired %+v, active %+v", retired, active)
		}
		synctest.Wait()
		if w.writes() != writes || len(r.events) != events || w.manifest().Generation != before.Generation {
			t.Errorf("it wrote: %v", r.events[events:])
		}
		if again, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); err != nil || again.After.Active("web").JWK.Kid != got.After.Active("web").JWK.Kid {
			t.Errorf("the dry run promised %s, it became %+v, %v", got.After.Active("web").JWK.Kid, again.After, err)
		}
		r.stop()
	})
}

// TestNotSafeYet at each stage, dry or not, and without a write.
func TestNotSafeYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.startBlind()
		refused := func(when string) *keyring.NotSafeYetError {
			t.Helper()
			writes := w.writes()
			for _, dry := range []bool{true, false} {
				got, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, dry)
				var e *keyring.NotSafeYetError
				if !errors.As(err, &e) || e.Ring != "web" || got.After != nil {
					t.Fatalf("%s: got %+v, %v", when, got, err)
				}
				if !dry {
					synctest.Wait()
					if w.writes() != writes {
						t.Errorf("%s: it wrote", when)
					}
					return e
				}
			}
			return nil
		}
		sleep(time.Second)
		if e := refused("founded, not read back"); !slices.Equal(e.Waiting, []string{"bucket"}) {
			t.Errorf("%+v", e)
		}
		r.blinded(false)
		sleep(2 * time.Minute)
		confirmed := w.manifest().Standby("web").Confirmed["bucket"]
		if e := refused("the lead has not passed"); !e.SafeAt.Equal(confirmed.Add(15*time.Minute + 10*time.Second)) {
			t.Errorf("safe at %v, read back at %v", e.SafeAt, confirmed)
		}
		r.stop()
	})
}

// TestCommandWithoutAManifest is answered, not left to wait.
func TestCommandWithoutAManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.down = keyring.ErrUnavailable
		r := w.start()
		synctest.Wait()
		if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("with the store down: %v", err)
		}
		sleep(5 * time.Second)
		w.change(func() { w.down = nil })
		var e *keyring.NotSafeYetError
		if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); !errors.As(err, &e) {
			t.Errorf("on an empty store: %v", err)
		}
		if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "nobody"}, false); !errors.Is(err, keyring.ErrUnknownRing) || err.Error() != `ring "nobody": no such ring` {
			t.Errorf("unknown ring: %v", err)
		}
		r.stop()
	})
}

// TestCommandsEnd with their caller, and with the process.
func TestCommandsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		hang := &hanging{}
		r := w.start(func(c *rotator.Config) { hang.Store = c.Store; c.Store = hang })
		sleep(20 * time.Minute)
		hang.yes.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := r.rot.Command(ctx, keyring.Command{Rotate: "web"}, false); !errors.Is(err, keyring.ErrUnavailable) || time.Since(start) != 5*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		// The loop is still busy with it; a second caller gives up too.
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := r.rot.Command(ctx, keyring.Command{Rotate: "web"}, false); !errors.Is(err, keyring.ErrUnavailable) {
			t.Error(err)
		}
		sleep(2 * time.Minute)
		done := make(chan error)
		go func() {
			_, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false)
			done <- err
		}()
		sleep(time.Second)
		r.stop()
		if err := <-done; !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("at the end of the process: %v", err)
		}
	})
}

// TestRotateIsNotReplayed: a save whose outcome is not known is not tried
// again for the operator, who is told; the next tick sees what is stored.
func TestRotateIsNotReplayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		standby := w.manifest().Standby("web").JWK.Kid
		once := true
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "save" && once {
					once = false
					return persists
				}
				return works
			}
		})
		if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); err == nil {
			t.Error("answered as done")
		}
		sleep(3 * time.Minute)
		if got := w.manifest().Active("web").JWK.Kid; got != standby {
			t.Errorf("%s signs, want %s", got, standby)
		}
		if got := r.alarms(); got != nil {
			t.Errorf("alarms %v", got)
		}
		sleep(17 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}

// TestTwoIssuers have a loop each; a command finds the one that has its ring.
func TestTwoIssuers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, other := newWorld(t), newWorld(t)
		second, err := other.try() // its store, under another name
		if err != nil {
			t.Fatal(err)
		}
		r := w.start(func(c *rotator.Config) {
			cfg := hourly()
			cfg.Name, cfg.URL, cfg.Rings[0].Name = "second", "https://second.example", "api"
			c.Issuers = append(c.Issuers, cfg)
			c.Store = byIssuer{"main": c.Store, "second": second}
			c.Halves["vaultkv"] = halvesByIssuer{"main": c.Halves["vaultkv"], "second": second}
			c.Accept = func(issuer string, s *keyring.Snapshot) {
				if issuer != s.Config.Name {
					t.Errorf("the snapshot of %s is handed on as one of %s", s.Config.Name, issuer)
				}
			}
			c.Confirmed = func(issuer string) map[string]keyring.Observation {
				from := w
				if issuer == "second" {
					from = other
				}
				s := from.manifest()
				if s == nil {
					return nil
				}
				set, _ := keyring.Set(s, time.Now(), keyring.ViewAll)
				return map[string]keyring.Observation{"bucket": {At: time.Now(), Kids: set.Kids}}
			}
		})
		sleep(20 * time.Minute)
		got, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "api"}, false)
		if err != nil || got.After.Active("api").Ring != "api" {
			t.Fatalf("%+v, %v", got, err)
		}
		if s := r.rot.Status("second"); s.Snapshot.Active("api").JWK.Kid != got.After.Active("api").JWK.Kid {
			t.Errorf("status %+v", s)
		}
		w.wantWhole()
		other.change(func() { other.down = keyring.ErrUnavailable })
		w.change(func() { w.down = keyring.ErrDenied })
		sleep(5 * time.Minute)
		for range 100 {
			if got := r.alarms(); !slices.Equal(got, []string{"store_denied", "store_unavailable"}) {
				t.Errorf("alarms %v are not in the order of the issuers", got)
			}
		}
		r.stop()
	})
}

type byIssuer map[string]rotator.Store

func (b byIssuer) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	return b[issuer].Load(ctx, "main")
}

func (b byIssuer) Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	return b[issuer].Save(ctx, "main", next, version)
}

type halvesByIssuer map[string]rotator.Halves

func (b halvesByIssuer) Create(ctx context.Context, issuer string, alg keyring.Algorithm, bits int) (keyring.JWK, string, error) {
	return b[issuer].Create(ctx, "main", alg, bits)
}

func (b halvesByIssuer) Destroy(ctx context.Context, issuer, handle string) error {
	return b[issuer].Destroy(ctx, "main", handle)
}

func (b halvesByIssuer) List(ctx context.Context, issuer string) ([]string, error) {
	return b[issuer].List(ctx, "main")
}

// TestNextRun is when the ring in force is due.
func TestNextRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(90 * time.Minute)
		s := w.manifest()
		ring := s.Config.Rings[0]
		if got, want := r.rot.NextRun(ring, s), time.Now().Truncate(time.Hour).Add(time.Hour); !got.Equal(want) {
			t.Errorf("next run %v, want %v", got, want)
		}
		ring.Rotate = "x"
		if got := r.rot.NextRun(ring, s); !got.IsZero() {
			t.Errorf("of a bad schedule: %v", got)
		}
		ring.Name = "nobody"
		if got := r.rot.NextRun(ring, s); !got.IsZero() {
			t.Errorf("of no ring: %v", got)
		}
		r.stop()
	})
}

// TestBadScheduleInForce, which only a newer keyturn can have written: nothing
// rotates, nothing breaks.
func TestBadScheduleInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		active := w.manifest().Active("web").JWK.Kid
		w.change(func() {
			w.doc = changed(t, w.doc, func(s *keyring.Snapshot) {
				s.Generation, s.WriteID, s.Config.Rings[0].Rotate, s.Config.Revision = s.Generation+1, "newer", "L * * * *", 7
			})
			w.version++
		})
		sleep(3 * time.Hour)
		if s := w.manifest(); s.Active("web").JWK.Kid != active || !s.Lease.After(time.Now()) {
			t.Errorf("active %s, lease until %v", s.Active("web").JWK.Kid, s.Lease)
		}
		if got := r.alarms(); !slices.Equal(got, []string{"config_drift"}) {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestLog: what happened is told once, with the kid; alarms come and go; a
// lost race is no error.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		w := newWorld(t)
		r := w.start(func(c *rotator.Config) { c.Logger = slog.New(slog.NewJSONHandler(&text, nil)) })
		sleep(20 * time.Minute)
		w.change(func() { w.down = keyring.ErrUnavailable })
		sleep(5 * time.Minute)
		w.change(func() { w.down = nil })
		sleep(5 * time.Minute)
		w.change(func() { w.beforeCAS = func() { promote(w) } })
		sleep(45 * time.Minute)
		r.stop()
		log := text.String()
		for want, times := range map[string]int{
			`"msg":"issuer_founded"`:                       1,
			`"msg":"alarm raised"`:                         1,
			`"msg":"alarm cleared"`:                        1,
			`"code":"store_unavailable"`:                   2,
			`"msg":"another replica wrote first"`:          1,
			`"level":"ERROR"`:                              0,
			`"kid":"` + w.manifest().Keys[0].JWK.Kid + `"`: -1,
		} {
			if n := strings.Count(log, want); times >= 0 && n != times || times < 0 && n == 0 {
				t.Errorf("%s stands %d times in the log, want %d", want, n, times)
			}
		}
		for line := range strings.Lines(log) {
			if !strings.Contains(line, `"issuer":"main"`) {
				t.Errorf("a line does not name the issuer: %s", line)
			}
		}
	})
}
