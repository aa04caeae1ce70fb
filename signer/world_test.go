package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// half is an opaque key, as a custody hands it out; before runs ahead of each signature.
type half struct {
	key    crypto.Signer
	before func() error
}

func (h half) Public() crypto.PublicKey { return h.key.Public() }
func (h half) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h.before != nil {
		if err := h.before(); err != nil {
			return nil, err
		}
	}
	return h.key.Sign(r, digest, opts)
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

func newHalf(t testing.TB, alg keyring.Algorithm) crypto.Signer {
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

// keySource is a custody in memory. What it holds may change at any time.
type keySource struct {
	mu    sync.Mutex
	halfs map[string]crypto.Signer
	fail  map[string]error
	asked []string // kids, in order
}

func (k *keySource) Signer(_ context.Context, _ string, key keyring.Key) (crypto.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, key.JWK.Kid)
	if err := k.fail[key.JWK.Kid]; err != nil {
		return nil, err
	}
	h, ok := k.halfs[key.JWK.Kid]
	if !ok {
		return nil, keyring.ErrNoKey
	}
	return h, nil
}

func (k *keySource) set(kid string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail[kid] = err
}

func (k *keySource) tries() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.asked...)
}

// recorder keeps records in memory; before runs ahead of each.
type recorder struct {
	mu      sync.Mutex
	records []audit.Record
	before  func() error
}

func (r *recorder) AppendAll(_ context.Context, records []audit.Record) error {
	r.mu.Lock()
	before := r.before
	r.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, records...)
	return nil
}

func (r *recorder) all() []audit.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]audit.Record(nil), r.records...)
}

func (r *recorder) breakWith(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = func() error { return err }
	if err == nil {
		r.before = nil
	}
}

// world is a signer with one issuer, "main", and what it stands on.
type world struct {
	t    testing.TB
	s    *Signer
	keys *keySource
	rec  *recorder
	log  *lockedBuffer
	cfg  Config
	snap *keyring.Snapshot // the newest; changed with change
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

const issuerURL = "https://tokens.example.com"

func ptr[T any](v T) *T { return &v }

// anybody is a profile for uid 1000 that leaves the request free.
func anybody(name, ring string) Profile {
	return Profile{
		Name: name, Ring: ring, Allow: []Rule{{UID: ptr(uint32(1000))}},
		Subject: Subject{Pattern: ".+"}, Audiences: []string{"api://orders", AnyName},
		Claims: Claims{Allow: []string{AnyName}}, TTL: TTL{5 * time.Minute, time.Hour},
	}
}

// newWorld has a ring for each algorithm, named like it, with an active key.
func newWorld(t testing.TB, algs ...keyring.Algorithm) *world {
	t.Helper()
	w := &world{t: t, log: &lockedBuffer{}, rec: &recorder{}, keys: &keySource{halfs: map[string]crypto.Signer{}, fail: map[string]error{}}}
	now := time.Now()
	w.snap = &keyring.Snapshot{
		Schema: keyring.Schema, Lineage: "lineage-1", Generation: 5,
		Config: keyring.Config{
			Name: "main", URL: issuerURL, Revision: 1,
			ConsumerCache: keyring.Duration(15 * time.Minute), JWKSMaxAge: keyring.Duration(5 * time.Minute),
			Leeway: keyring.Duration(time.Minute), OutageBudget: keyring.Duration(8 * time.Hour),
			ClockSkew: keyring.Duration(10 * time.Second), SyncInterval: keyring.Duration(10 * time.Second),
			MaxKeys: 100, Targets: []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true}},
		},
		Lease: now.Add(9 * time.Hour),
	}
	w.cfg = Config{Keys: w.keys, Audit: w.rec, Logger: slog.New(slog.NewJSONHandler(w.log, nil))}
	for _, alg := range algs {
		ring := string(alg)
		w.snap.Config.Rings = append(w.snap.Config.Rings, keyring.Ring{Name: ring, Algorithm: alg, Custody: "local", MaxTokenTTL: keyring.Duration(time.Hour)})
		w.snap.Keys = append(w.snap.Keys, w.newKey(ring, alg, now))
		w.cfg.Rings = append(w.cfg.Rings, Ring{Name: ring, Issuer: "main", MaxTokenTTL: time.Hour})
		w.cfg.Profiles = append(w.cfg.Profiles, anybody("p-"+ring, ring))
	}
	return w
}

// newKey makes an active key of a ring and puts its half into the source.
func (w *world) newKey(ring string, alg keyring.Algorithm, now time.Time) keyring.Key {
	w.t.Helper()
	h := newHalf(w.t, alg)
	jwk, err := keyring.NewJWK(h.Public(), alg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.keys.mu.Lock()
	w.keys.halfs[jwk.Kid] = half{key: h}
	w.keys.mu.Unlock()
	return keyring.Key{
		JWK: jwk, Ring: ring, Custody: "local", Handle: jwk.Kid, Created: now.Add(-time.Hour), Activated: now.Add(-time.Minute),
		Confirmed: map[string]time.Time{"file": now.Add(-time.Hour)},
		MaxTTL:    keyring.Duration(time.Hour), Tail: keyring.Duration(time.Hour + 70*time.Second),
	}
}

// start makes the signer, gives it the snapshot and runs it until the test ends.
func (w *world) start() *world {
	w.t.Helper()
	s, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	})
	s.Accept("main", w.snap)
	return w
}

// ready waits until the signer signs for every ring.
func (w *world) ready() *world {
	w.t.Helper()
	w.eventually("ready", func() bool { return len(w.s.Ready(time.Now())) == 0 })
	return w
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for range 500 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("never %s; alarms %+v", what, w.s.Alarms(time.Now()))
}

// change accepts the next generation of the snapshot.
func (w *world) change(f func(s *keyring.Snapshot)) {
	w.t.Helper()
	next := w.snap.Clone()
	next.Generation++
	f(next)
	w.snap = next
	w.s.Accept("main", next)
}

var alice = caller{socket: "default", known: true, peer: unixsock.Peer{PID: 42, UID: 1000, GID: 1000, Groups: []uint32{2000}}}

// ask sends one request past HTTP.
func (w *world) ask(body string) (*api.SignResponse, *api.Problem) {
	return w.s.answer(context.Background(), alice, []byte(body))
}

// answer is one decision past HTTP: exactly one of its results is set.
func (s *Signer) answer(ctx context.Context, c caller, body []byte) (*api.SignResponse, *api.Problem) {
	dk := newDesk()
	defer dk.clear()
	dk.body = append(dk.body, body...)
	d := s.judgeOne(ctx, c, dk)
	if s.commit(ctx, dk); d.prob != nil {
		return nil, d.prob
	}
	return &api.SignResponse{Token: string(d.token), Kid: d.rec.Kid, ExpiresAt: d.rec.ExpiresAt, ExpiresIn: d.ttl}, nil
}

func (w *world) mustSign(profile string) *api.SignResponse {
	w.t.Helper()
	resp, prob := w.ask(`{"profile":"` + profile + `","subject":"user-1"}`)
	if prob != nil {
		w.t.Fatalf("sign: %v; alarms %+v", prob, w.s.Alarms(time.Now()))
	}
	return resp
}

func (w *world) wantCode(prob *api.Problem, code api.Code, text string) {
	w.t.Helper()
	if prob == nil || prob.Code != code || !strings.Contains(prob.Detail, text) {
		w.t.Errorf("problem %v, want %s with %q", prob, code, text)
	}
}

// verify reads a token back as a consumer of the published set does.
func (w *world) verify(raw string) *token.Verified {
	w.t.Helper()
	set, err := keyring.Set(w.snap, time.Now(), keyring.ViewAll)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := token.ParseSet(set.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.Verify(keys, raw, token.Options{Now: time.Now(), Issuer: issuerURL})
	if err != nil {
		w.t.Fatalf("verify: %v", err)
	}
	return v
}

func decode[T any](t testing.TB, doc []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(doc, &v); err != nil {
		t.Fatalf("decode %s: %v", doc, err)
	}
	return v
}

var errDisk = errors.New("no space left on device")
