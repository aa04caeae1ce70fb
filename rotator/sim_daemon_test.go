package rotator

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simShop is the simulated store for processes that run by themselves: every
// call happens at once.
type simShop struct {
	mu sync.Mutex
	w  *simWorld
	by *simReplica
}

func (s *simShop) Load(context.Context, string) (*keyring.Snapshot, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.store.read(false)
}

func (s *simShop) Save(_ context.Context, _ string, next *keyring.Snapshot, version int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if err := s.w.store.save(simWrite{next: next, version: version, by: s.by, accept: s.w.faults.disturbed && next.Frozen == nil, sent: now, began: now}); err != nil {
		return 0, err
	}
	return version + 1, nil
}

func (s *simShop) Create(_ context.Context, _ string, alg keyring.Algorithm, _ int) (keyring.JWK, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	jwk := s.w.keys.next(alg)
	s.w.store.halves[jwk.Kid] = simHalf{created: time.Now()}
	return jwk, jwk.Kid, nil
}

func (s *simShop) Destroy(_ context.Context, _, handle string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.w.store.halves, handle)
	return nil
}

func (s *simShop) List(context.Context, string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kids []string
	for kid := range s.w.store.halves {
		kids = append(kids, kid)
	}
	return kids, nil
}

// TestSimProcess runs the loop as the daemon does, goroutine, timers, state
// directory and all, through a day of rotations, commands and a restore. The
// walks drive the tick by hand; this is the rest of the way.
func TestSimProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := simSmall()
		defer w.end()
		w.files[0].SingleProcess = false
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		cfg := processConfig(t, w, dir)
		rot, stop := startProcess(t, cfg)
		time.Sleep(2*time.Hour + 30*time.Second) // between two rotations, not in the midst of one
		synctest.Wait()
		s := rot.Status("main").Snapshot
		if s == nil || s.Active("a") == nil || s.Standby("a") == nil || len(rot.Alarms()) > 0 {
			t.Fatalf("after two hours: %+v, alarms %v", s, rot.Alarms())
		}
		if next := rot.NextRun(s.Config.Rings[0], s); next.IsZero() {
			t.Errorf("the next run is at %s", next)
		}
		commands(t, rot, s)
		stop()

		w.store.version = simVersion{number: w.store.version.number + 1, err: keyring.ErrCorrupt}
		w.faults.disturbed = true
		rot, stop = startProcess(t, cfg) // from its state directory
		defer stop()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if rot.Status("main").Snapshot == nil || len(rot.Alarms()) == 0 {
			t.Fatalf("a corrupt manifest: %+v, alarms %v", rot.Status("main"), rot.Alarms())
		}
		if _, err := rot.Accept(t.Context(), "main", true, false); err != nil {
			t.Errorf("accept, dry run: %v", err)
		}
		if _, err := rot.Accept(t.Context(), "main", false, false); err != nil {
			t.Errorf("accept: %v", err)
		}
		rot.Wake()
		rot.Retry()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(rot.Alarms()) > 0 || rot.Alive() != nil {
			t.Errorf("after keyturn accept: %v, %v", rot.Alarms(), rot.Alive())
		}
	})
}

// processConfig is a process over the simulated store whose target shows at
// once what was handed on.
func processConfig(t *testing.T, w *simWorld, dir string) Config {
	shop := &simShop{w: w, by: w.replicas[0]}
	var mu sync.Mutex
	var last *keyring.Snapshot
	return Config{
		Store: shop, Halves: map[string]Halves{"vaultkv": shop}, Issuers: []keyring.Config{w.files[0]}, Advance: true, Publishes: true, StateDir: dir,
		Logger: slog.New(slog.DiscardHandler),
		Accept: func(_ string, s *keyring.Snapshot) { mu.Lock(); defer mu.Unlock(); last = s },
		Confirmed: func(string) map[string]keyring.Observation {
			mu.Lock()
			defer mu.Unlock()
			if last == nil {
				return nil
			}
			set, err := keyring.Set(last, time.Now(), keyring.ViewAll)
			if err != nil {
				t.Error(err)
			}
			return map[string]keyring.Observation{"bucket": {At: time.Now(), Kids: set.Kids}}
		},
	}
}

func startProcess(t *testing.T, cfg Config) (*Rotator, func()) {
	t.Helper()
	rot, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rot.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return rot, func() { cancel(); <-done }
}

// commands asks for what operators ask for, also where it is refused.
func commands(t *testing.T, rot *Rotator, s *keyring.Snapshot) {
	t.Helper()
	active := s.Active("a").JWK.Kid
	for _, tc := range []struct {
		cmd  keyring.Command
		dry  bool
		want error
	}{
		{keyring.Command{Rotate: "none"}, false, keyring.ErrUnknownRing},
		{keyring.Command{Revoke: []string{"none"}}, false, keyring.ErrUnknownKey},
		{keyring.Command{Rotate: "a", To: "none"}, false, keyring.ErrUnknownKey},
		{keyring.Command{Rotate: "a", Force: true}, true, nil},
		{keyring.Command{Rotate: "a", To: active}, false, nil},
		{keyring.Command{Revoke: []string{active}, Force: true}, false, nil},
		{keyring.Command{RevokeRing: "a"}, false, nil},
	} {
		if _, err := rot.Command(t.Context(), tc.cmd, tc.dry); !errors.Is(err, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.cmd, err, tc.want)
		}
	}
	if _, err := rot.Accept(t.Context(), "none", false, false); !errors.Is(err, ErrUnknownIssuer) {
		t.Errorf("accept of an unknown issuer: %v", err)
	}
}

// TestSimConfigurations draws configurations at random: each is one that the
// solver takes, or that it refuses with words. What it takes is what walks run.
func TestSimConfigurations(t *testing.T) {
	chance := &simChance{branch: nil}
	chance.rng = newSimRand(1)
	pool := newSimPool()
	taken, refused := 0, 0
	for range 3000 {
		w := &simWorld{chance: chance, keys: pool.keys()}
		f := w.drawFile(1, w.drawKinds())
		f.ConsumerCache = simSeconds(simPick(chance, 0, 10, 40, 400))
		f.OutageBudget = simSeconds(simPick(chance, 0, 50, 100, 300, 100_000))
		f.Revision, f.Leeway = int64(chance.pick(3)), simSeconds(chance.pick(20))
		if chance.one(4) && len(f.Rings) > 0 {
			f.Rings[0].Algorithm, f.Rings[0].RSABits = keyring.RS256, simPick(chance, 0, 1024, 2048)
		}
		specs := map[string]string{}
		for _, r := range f.Rings {
			specs[r.Name] = r.Rotate
		}
		gaps := map[string]time.Duration{}
		for name, spec := range specs {
			gaps[name] = pool.gap(spec)
		}
		f = f.Resolve(gaps)
		switch err := f.Check(gaps); {
		case err == nil && f.Timing().Lead <= 0, err != nil && err.Error() == "":
			t.Fatalf("%+v: %v", f, err)
		case err == nil:
			taken++
		default:
			refused++
		}
	}
	if _, err := Gaps(map[string]string{"a": "@every 600s", "b": ""}); !errors.Is(err, errNoSchedule) {
		t.Errorf("a ring without a schedule: %v", err)
	}
	if taken == 0 || refused == 0 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
}
