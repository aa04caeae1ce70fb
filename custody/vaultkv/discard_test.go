package vaultkv_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultkv"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// maker generates keys as well as the machine under it does.
type maker struct {
	mu    sync.Mutex
	state string
	tries int
}

var errOnFire = errors.New("the machine is on fire")

func (m *maker) set(state string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.tries = state, 0
}

func (m *maker) tried() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries
}

func (m *maker) generate(alg keyring.Algorithm, bits int) (crypto.Signer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tries++
	key, err := half.Random(alg, bits)
	if err != nil {
		return nil, err
	}
	switch m.state {
	case "errs":
		return nil, errOnFire
	case "lies": // the public half is that of another key
		other, err := half.Random(alg, bits)
		if err != nil {
			return nil, err
		}
		copy(key.(ed25519.PrivateKey)[32:], other.(ed25519.PrivateKey)[32:])
	}
	return key, nil
}

// TestBadKeyIsDiscarded: generation, or the new key's own proof, fails for a
// while, over a rotation that is due (fault 36). Nothing of such a key is
// deposited or named, the active one signs on within a lease that is renewed,
// and an alarm tells why; then the rotation is made up for.
func TestBadKeyIsDiscarded(t *testing.T) {
	t.Parallel()
	for state, reason := range map[string]string{"errs": errOnFire.Error(), "lies": "is dropped"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			gen := new(maker)
			c := open(t, options{gen: gen.generate})
			rot := rotates(t, c)
			var first, second string
			eventually(t, "an active key and a standby", func() error {
				var err error
				first, second, err = turning(rot)
				return err
			})
			gen.set(state)
			// The standby that is there takes its turn; then there is nobody.
			eventually(t, "a rotation that nobody can take", func() error {
				for _, a := range rot.Alarms() {
					if a.Code == "rotation_overdue" {
						return nil
					}
				}
				return fmt.Errorf("alarms %+v", rot.Alarms())
			})
			s := rot.Status("main").Snapshot
			signsOn(t, c, rot, second)
			if k := s.Key(first); k == nil || k.Retired.IsZero() || s.Standby("web") != nil {
				t.Errorf("keys %+v", s.Keys)
			}
			if gen.tried() < 2 {
				t.Errorf("it was tried %d times", gen.tried())
			}
			told := slices.ContainsFunc(rot.Alarms(), func(a keyring.Alarm) bool {
				return a.Code == "key_not_created" && a.Ring == "web" && strings.Contains(a.Message, reason)
			})
			if !told {
				t.Errorf("no alarm says %q: %+v", reason, rot.Alarms())
			}
			onlyNamed(t, c, rot)
			gen.set("")
			eventually(t, "the rotation", func() error {
				active, _, err := turning(rot)
				if err != nil || active == second || len(rot.Alarms()) > 0 {
					return fmt.Errorf("active %s, %w, alarms %+v", active, err, rot.Alarms())
				}
				return nil
			})
		})
	}
}

// rotates runs a rotator with a rotation every 5 s, of which a new key waits
// 400ms. What it hands on is published at once.
func rotates(t *testing.T, c *vaultkv.Custody) *rotator.Rotator {
	t.Helper()
	ms := func(n time.Duration) keyring.Duration { return keyring.Duration(n * time.Millisecond) }
	cfg := keyring.Config{
		Name: "main", URL: "https://tokens.example.com", Revision: 1,
		ConsumerCache: ms(200), JWKSMaxAge: ms(200), ClockSkew: ms(200), Leeway: ms(1000), OutageBudget: ms(2000), SyncInterval: ms(100), MaxKeys: 100,
		Targets: []keyring.Target{{Name: "bucket", Kind: keyring.TargetBucket, Required: true}},
		Rings:   []keyring.Ring{{Name: "web", Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: "@every 5s", MaxTokenTTL: ms(1000)}},
	}
	var published atomic.Pointer[keyring.Snapshot]
	rot, err := rotator.New(rotator.Config{
		Store: c, Halves: map[string]rotator.Halves{"vaultkv": c}, Issuers: []keyring.Config{cfg}, Advance: true, Publishes: true,
		StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
		Accept: func(_ string, s *keyring.Snapshot) { published.Store(s) },
		Confirmed: func(string) map[string]keyring.Observation {
			s := published.Load()
			if s == nil {
				return nil
			}
			var kids []string
			for i := range s.Keys {
				kids = append(kids, s.Keys[i].JWK.Kid)
			}
			return map[string]keyring.Observation{"bucket": {At: time.Now(), Kids: kids}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- rot.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return rot
}

// turning is who signs and who is next.
func turning(rot *rotator.Rotator) (active, standby string, err error) {
	s := rot.Status("main").Snapshot
	if s == nil || s.Active("web") == nil || s.Standby("web") == nil {
		return "", "", fmt.Errorf("not yet: %+v", s)
	}
	return s.Active("web").JWK.Kid, s.Standby("web").JWK.Kid, nil
}

// signsOn wants a key that signs while its lease is renewed, twice.
func signsOn(t *testing.T, c *vaultkv.Custody, rot *rotator.Rotator, kid string) {
	t.Helper()
	lease := rot.Status("main").Snapshot.Lease
	for range 2 {
		eventually(t, "a longer lease", func() error {
			s := rot.Status("main").Snapshot
			k := s.Active("web")
			if k == nil || k.JWK.Kid != kid || !time.Now().Before(s.Lease) {
				t.Fatalf("active %+v, lease %s, and %s should sign", k, s.Lease, kid)
			}
			key, err := c.Signer(t.Context(), "main", *k)
			if err != nil {
				t.Fatal(err)
			}
			message := []byte("it signs")
			sig, err := key.Sign(nil, message, crypto.Hash(0))
			if err != nil || !ed25519.Verify(key.Public().(ed25519.PublicKey), message, sig) {
				t.Fatalf("%s does not sign: %v", kid, err)
			}
			if !s.Lease.After(lease) {
				return fmt.Errorf("it ends %s", s.Lease)
			}
			lease = s.Lease
			return nil
		})
	}
}

// onlyNamed wants the halves of the keys in Vault that the manifest names, and
// no others.
func onlyNamed(t *testing.T, c *vaultkv.Custody, rot *rotator.Rotator) {
	t.Helper()
	eventually(t, "only the halves of the manifest's keys", func() error {
		halves, err := c.List(t.Context(), "main")
		if err != nil {
			return err
		}
		var named []string
		for _, k := range rot.Status("main").Snapshot.Keys {
			if k.Destroyed.IsZero() {
				named = append(named, k.JWK.Kid)
			}
		}
		slices.Sort(named)
		if !slices.Equal(halves, named) {
			return fmt.Errorf("halves %v, named %v", halves, named)
		}
		return nil
	})
}

func eventually(t *testing.T, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
