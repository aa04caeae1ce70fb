// Package keystest is a custody in memory and the snapshots of one issuer, for
// tests of what signs. It stands where a rotator and a store do in a daemon.
package keystest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// URL is that of the issuer.
const URL = "https://tokens.example.com"

// Issuer is an issuer named "main", as its manifest has it.
type Issuer struct {
	Source *Source
	// Snap is the newest snapshot; change it directly until somebody has it.
	Snap *keyring.Snapshot
	// Accept gets what Change makes.
	Accept func(issuer string, snap *keyring.Snapshot)

	t testing.TB
}

// New is an issuer with a ring for each algorithm, named like it, with an
// active key each, and a lease of nine hours.
func New(t testing.TB, algs ...keyring.Algorithm) *Issuer {
	t.Helper()
	now := time.Now()
	i := &Issuer{t: t, Source: &Source{Halfs: map[string]crypto.Signer{}, fail: map[string]error{}}}
	i.Snap = &keyring.Snapshot{
		Schema: keyring.Schema, Lineage: "lineage-1", Generation: 5,
		Config: keyring.Config{
			Name: "main", URL: URL, Revision: 1,
			ConsumerCache: keyring.Duration(15 * time.Minute), JWKSMaxAge: keyring.Duration(5 * time.Minute),
			Leeway: keyring.Duration(time.Minute), OutageBudget: keyring.Duration(8 * time.Hour),
			ClockSkew: keyring.Duration(10 * time.Second), SyncInterval: keyring.Duration(10 * time.Second),
			MaxKeys: 100, Targets: []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true}},
		},
		Lease: now.Add(9 * time.Hour),
	}
	for _, alg := range algs {
		ring := string(alg)
		i.Snap.Config.Rings = append(i.Snap.Config.Rings, keyring.Ring{Name: ring, Algorithm: alg, Custody: "local", MaxTokenTTL: keyring.Duration(time.Hour)})
		i.Snap.Keys = append(i.Snap.Keys, i.NewKey(ring, alg, now))
	}
	return i
}

// NewKey makes an active key of a ring and puts its half into the source.
func (i *Issuer) NewKey(ring string, alg keyring.Algorithm, now time.Time) keyring.Key {
	i.t.Helper()
	h := NewHalf(i.t, alg)
	jwk, err := keyring.NewJWK(h.Public(), alg)
	if err != nil {
		i.t.Fatal(err)
	}
	i.Source.put(jwk.Kid, Half{Key: h, Canary: Canary})
	return keyring.Key{
		JWK: jwk, Ring: ring, Custody: "local", Handle: jwk.Kid, Created: now.Add(-time.Hour), Activated: now.Add(-time.Minute),
		Confirmed: map[string]time.Time{"file": now.Add(-time.Hour)},
		MaxTTL:    keyring.Duration(time.Hour), Tail: keyring.Duration(time.Hour + 70*time.Second),
	}
}

// Change makes the next generation of the snapshot and hands it to Accept.
func (i *Issuer) Change(f func(s *keyring.Snapshot)) {
	i.t.Helper()
	next := i.Snap.Clone()
	next.Generation++
	f(next)
	i.Snap = next
	i.Accept("main", next)
}

// AddStandby adds a key to the ring of an algorithm.
func (i *Issuer) AddStandby(alg keyring.Algorithm) keyring.Key {
	i.t.Helper()
	k := i.NewKey(string(alg), alg, time.Now())
	k.Activated = time.Time{}
	i.Change(func(s *keyring.Snapshot) { s.Keys = append(s.Keys, k) })
	return k
}

// AddBroken adds a standby of ES256 whose half cannot be had, and returns its kid.
func (i *Issuer) AddBroken(err error) string {
	i.t.Helper()
	k := i.NewKey("ES256", keyring.ES256, time.Now())
	k.Activated = time.Time{}
	i.Source.Fail(k.JWK.Kid, err)
	i.Change(func(s *keyring.Snapshot) { s.Keys = append(s.Keys, k) })
	return k.JWK.Kid
}

// Promote makes a standby active, as the planner does.
func (i *Issuer) Promote(kid string) {
	i.t.Helper()
	i.Change(func(s *keyring.Snapshot) {
		next := s.Key(kid)
		old := s.Active(next.Ring)
		old.Retired, old.SignUntil = time.Now(), s.Lease
		next.Activated = time.Now()
	})
}

// Source is a custody in memory. What it holds may change at any time.
type Source struct {
	// Halfs are the halves by kid, to be changed before they are asked for.
	Halfs map[string]crypto.Signer

	mu    sync.Mutex
	fail  map[string]error
	asked []string // kids, in order
}

// Signer implements keys.Source.
func (s *Source) Signer(_ context.Context, _ string, key keyring.Key) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, key.JWK.Kid)
	if err := s.fail[key.JWK.Kid]; err != nil {
		return nil, err
	}
	h, ok := s.Halfs[key.JWK.Kid]
	if !ok {
		return nil, keyring.ErrNoKey
	}
	return h, nil
}

// Fail makes a half fail from now on, or, with nil, no longer.
func (s *Source) Fail(kid string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[kid] = err
}

// Tries are the kids that were asked for, in order.
func (s *Source) Tries() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

func (s *Source) put(kid string, half crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Halfs[kid] = half
}

// Half is an opaque key, as a custody hands it out; Before runs ahead of each
// signature where it is set.
type Half struct {
	Key    crypto.Signer
	Before func() error
	// Canary is printed by whatever prints a half.
	Canary string
}

// Canary is that of all halves that NewKey makes.
const Canary = "canary-7f3a91"

// Public implements crypto.Signer.
func (h Half) Public() crypto.PublicKey { return h.Key.Public() }

// Sign implements crypto.Signer.
func (h Half) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h.Before != nil {
		if err := h.Before(); err != nil {
			return nil, err
		}
	}
	return h.Key.Sign(r, digest, opts)
}

// RSA keys are slow to make: one of each algorithm serves all tests.
var rsaKeys sync.Map

func rsaKey(alg keyring.Algorithm) (*rsa.PrivateKey, error) {
	if key, ok := rsaKeys.Load(alg); ok {
		return key.(*rsa.PrivateKey), nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	rsaKeys.Store(alg, key)
	return key, err
}

// NewHalf makes a private key of an algorithm.
func NewHalf(t testing.TB, alg keyring.Algorithm) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case keyring.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case keyring.ES384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case keyring.ES512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case keyring.EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = rsaKey(alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Spellings are the ways in which a private half could be printed.
func Spellings(t testing.TB, key *ecdsa.PrivateKey) []string {
	t.Helper()
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n := new(big.Int).SetBytes(raw)
	var words []string
	for _, w := range n.Bits() {
		words = append(words, fmt.Sprintf("%#x", uint(w)), fmt.Sprint(uint(w)))
	}
	return append(words, n.String(), n.Text(16), hex.EncodeToString(der), string(raw), base64.StdEncoding.EncodeToString(raw),
		base64.RawURLEncoding.EncodeToString(raw), fmt.Sprint(raw), base64.StdEncoding.EncodeToString(der))
}

// Log is a log that goroutines write and a test reads.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String is all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
