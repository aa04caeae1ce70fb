package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Keys of tests are made from small numbers, so that golden bytes stay.

func edPublic(n int) ed25519.PublicKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1], seed[2] = byte(n), byte(n>>8), 1
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

func ecPublic(t testing.TB, curve elliptic.Curve, n int) *ecdsa.PublicKey {
	t.Helper()
	scalar := big.NewInt(int64(n)).FillBytes(make([]byte, (curve.Params().BitSize+7)/8))
	key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

// rsaPublic has a modulus of the right length. Nobody signs with it.
func rsaPublic(bits, n int) *rsa.PublicKey {
	m := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	return &rsa.PublicKey{N: m.Add(m, big.NewInt(int64(2*n+1))), E: 65537}
}

func publicFor(t testing.TB, alg Algorithm, bits, n int) crypto.PublicKey {
	t.Helper()
	switch alg.Curve() {
	case "P-256":
		return ecPublic(t, elliptic.P256(), n)
	case "P-384":
		return ecPublic(t, elliptic.P384(), n)
	case "P-521":
		return ecPublic(t, elliptic.P521(), n)
	case "Ed25519":
		return edPublic(n)
	}
	return rsaPublic(bits, n)
}

func testJWK(t testing.TB, alg Algorithm, bits, n int) JWK {
	t.Helper()
	k, err := NewJWK(publicFor(t, alg, bits, n), alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func dur(text string) Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return Duration(d)
}

// bucketConfig is the example of the design with a shared target only:
//
//	tail = 1h + 10s + 60s = 1h1m10s · lead = 15m + 10s = 15m10s · B + R = 27h
//
// A rotation is due a week after the last.
func bucketConfig() Config {
	return Config{
		Name: "main", URL: "https://tokens.example.com", Revision: 1,
		ConsumerCache: dur("15m"), JWKSMaxAge: dur("5m"), Leeway: dur("60s"), OutageBudget: dur("24h"),
		ClockSkew: dur("10s"), SyncInterval: dur("10s"), MaxKeys: 100,
		Targets: []Target{{Name: "bucket", Kind: TargetBucket, Required: true}},
		Rings:   []Ring{{Name: "web", Algorithm: EdDSA, Custody: "vaultkv", Rotate: "weekly", MaxTokenTTL: dur("1h")}},
	}
}

const week = 7 * 24 * time.Hour

// life drives Plan as a lone replica does, one call at a time.
type life struct {
	t      testing.TB
	s      *Snapshot
	now    time.Time
	file   Config
	seen   map[string]Observation
	apart  bool // a rotator that publishes nothing
	serial int
	halves map[string]bool // kids whose halves exist
	names  []string        // kids in the order in which they were first told of
	past   []*Snapshot     // every committed snapshot, the last included
	out    Outcome
}

func newLife(t testing.TB, file Config) *life {
	return &life{t: t, now: epoch, file: file, seen: map[string]Observation{}, halves: map[string]bool{}}
}

func (l *life) input() Input {
	l.serial++
	return Input{
		Now: l.now, WriteID: fmt.Sprint("w", l.serial), Lineage: fmt.Sprint("lineage", l.serial), File: l.file,
		NextRun: func(schedule string, after time.Time) time.Time {
			if schedule == "never" {
				return time.Time{}
			}
			return after.Add(week)
		},
		Seen: l.seen, Publishes: !l.apart,
	}
}

// plan asks once. It changes nothing but l.out.
func (l *life) plan(with ...func(*Input)) Outcome {
	l.t.Helper()
	in := l.input()
	for _, f := range with {
		f(&in)
	}
	l.out = Plan(l.s, in)
	return l.out
}

// commit asks once and saves what Plan wants to be saved.
func (l *life) commit(with ...func(*Input)) Outcome {
	l.t.Helper()
	out := l.plan(with...)
	if out.Next == nil {
		return out
	}
	if l.s != nil && (out.Next.Generation != l.s.Generation+1 || out.Next.Lineage != l.s.Lineage) {
		l.t.Fatalf("generation %d of %s follows %d of %s", out.Next.Generation, out.Next.Lineage, l.s.Generation, l.s.Lineage)
	}
	doc, err := Encode(out.Next)
	if err != nil {
		l.t.Fatal(err)
	}
	// What the next reader gets, without what only memory would keep.
	if l.s, err = Decode(doc); err != nil {
		l.t.Fatalf("Plan wrote what cannot be read: %v", err)
	}
	l.past = append(l.past, l.s)
	return out
}

// deposit makes the keys that a plan asked for.
func (l *life) deposit(out Outcome) func(*Input) {
	l.t.Helper()
	var fresh []Fresh
	for _, r := range out.Create {
		l.serial++
		jwk := testJWK(l.t, r.Algorithm, r.RSABits, l.serial)
		l.halves[jwk.Kid] = true
		fresh = append(fresh, Fresh{Ring: r.Name, JWK: jwk, Custody: r.Custody, Handle: "h-" + jwk.Kid})
	}
	return func(in *Input) { in.Fresh = append(in.Fresh, fresh...) }
}

// turn does what a tick of the rotator does: it plans, deposits, saves and
// destroys until there is nothing left to do now.
func (l *life) turn(with ...func(*Input)) []EventKind {
	l.t.Helper()
	var events []EventKind
	var gone []string
	for range 20 {
		all := append(slices.Clone(with), func(in *Input) { in.Gone = gone })
		out := l.plan(all...)
		if len(out.Create) > 0 {
			all = append(all, l.deposit(out))
		}
		out = l.commit(all...)
		events = append(events, kinds(out)...)
		gone = nil
		if out.Next != nil {
			continue
		}
		for _, h := range out.Destroy {
			delete(l.halves, h.Kid)
			gone = append(gone, h.Kid)
		}
		if len(gone) == 0 {
			return events
		}
	}
	l.t.Fatalf("Plan does not come to rest; the last events were %v", events)
	return nil
}

// publish makes every target show the set as it is now.
func (l *life) publish(names ...string) {
	l.t.Helper()
	for _, t := range l.s.Config.Targets {
		if len(names) > 0 && !slices.Contains(names, t.Name) {
			continue
		}
		set, err := Set(l.s, l.now, ViewAll)
		if err != nil {
			l.t.Fatal(err)
		}
		l.seen[t.Name] = Observation{At: l.now, Kids: set.Kids}
	}
}

func (l *life) wait(d time.Duration) { l.now = l.now.Add(d) }

// settled founds an issuer and brings it to where it has an active key and a
// proven standby in each ring.
func settled(t testing.TB, file Config) *life {
	t.Helper()
	l := newLife(t, file)
	l.turn()
	for range 2 {
		l.publish()
		l.turn()
		l.wait(l.s.Lead(l.now))
	}
	for _, r := range file.Rings {
		if l.s.Active(r.Name) == nil || len(l.s.standbys(r.Name)) != 1 {
			t.Fatalf("ring %s did not settle", r.Name)
		}
	}
	return l
}

func kinds(out Outcome) []EventKind {
	var list []EventKind
	for _, e := range out.Events {
		list = append(list, e.Kind)
	}
	return list
}

func codes(out Outcome) []string {
	var list []string
	for _, a := range out.Alarms {
		list = append(list, a.Code)
	}
	return list
}

func wantEvents(t testing.TB, out Outcome, want ...EventKind) {
	t.Helper()
	if diff := cmp.Diff(want, kinds(out)); diff != "" {
		t.Fatalf("events (-want +got):\n%s", diff)
	}
}
