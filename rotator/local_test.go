package rotator_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// TestOnLocalCustody turns an issuer of every kind of key on the embedded
// custody, on a real directory, through a restart.
func TestOnLocalCustody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		cfg := hourly()
		cfg.SingleProcess = true
		cfg.Targets = []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true}}
		cfg.Rings = nil
		for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.ES384, keyring.ES512, keyring.EdDSA, keyring.RS256} {
			r := keyring.Ring{Name: string(alg), Algorithm: alg, Custody: "local", Rotate: "0 * * * *", MaxTokenTTL: minutes(10)}
			if alg.IsRSA() {
				r.RSABits = 2048
			}
			cfg.Rings = append(cfg.Rings, r)
		}
		if err := cfg.Check(map[string]time.Duration{"ES256": time.Hour, "ES384": time.Hour, "ES512": time.Hour, "EdDSA": time.Hour, "RS256": time.Hour}); err != nil {
			t.Fatal(err)
		}
		var first, second *keyring.Snapshot
		turnLocally(t, dir, cfg, func(r *rotator.Rotator) {
			sleep(20 * time.Minute)
			first = r.Status("main").Snapshot
			sleep(time.Hour)
		})
		turnLocally(t, dir, cfg, func(r *rotator.Rotator) {
			synctest.Wait()
			sleep(time.Hour)
			second = r.Status("main").Snapshot
			if got := r.Alarms(); len(got) != 0 {
				t.Errorf("alarms %v", got)
			}
		})
		if first.Lineage != second.Lineage {
			t.Error("a restart made a new lineage")
		}
		named := []string{}
		for _, ring := range cfg.Rings {
			old, now, next := first.Active(ring.Name), second.Active(ring.Name), second.Standby(ring.Name)
			if old == nil || now == nil || next == nil || old.JWK.Kid == now.JWK.Kid {
				t.Fatalf("ring %s: %v, %v, %v", ring.Name, old, now, next)
			}
			if k := second.Key(old.JWK.Kid); k == nil || k.Destroyed.IsZero() {
				t.Errorf("ring %s: the half of the first key: %+v", ring.Name, k)
			}
			for i := range second.Keys {
				if k := &second.Keys[i]; k.Ring == ring.Name && k.Closed.IsZero() {
					named = append(named, k.JWK.Kid+".sealed")
				}
			}
		}
		entries, err := os.ReadDir(filepath.Join(dir, "custody", "issuers", "main", "keys"))
		if err != nil {
			t.Fatal(err)
		}
		var files []string
		for _, e := range entries {
			files = append(files, e.Name())
		}
		slices.Sort(named)
		if !slices.Equal(files, named) {
			t.Errorf("files of halves %q, want %q", files, named)
		}
	})
}

// turnLocally runs a process on a directory: it opens the custody, turns for a
// while, and closes it again.
func turnLocally(t *testing.T, dir string, cfg keyring.Config, while func(*rotator.Rotator)) {
	t.Helper()
	custody, err := local.Open(local.Config{Dir: filepath.Join(dir, "custody"), Key: bytes.Repeat([]byte{7}, local.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	var published atomic.Pointer[keyring.Snapshot]
	rot, err := rotator.New(rotator.Config{
		Store: custody, Halves: map[string]rotator.Halves{"local": custody}, Issuers: []keyring.Config{cfg}, Advance: true, Publishes: true,
		StateDir: dir, Logger: slog.New(slog.DiscardHandler),
		Accept: func(_ string, s *keyring.Snapshot) { published.Store(s) },
		Confirmed: func(string) map[string]keyring.Observation {
			s := published.Load()
			if s == nil {
				return nil
			}
			set, err := keyring.Set(s, time.Now(), keyring.ViewAll)
			if err != nil {
				t.Error(err)
			}
			return map[string]keyring.Observation{"file": {At: time.Now(), Kids: set.Kids}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- rot.Run(ctx) }()
	while(rot)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := custody.Close(); err != nil {
		t.Error(err)
	}
}
