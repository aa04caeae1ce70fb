package signer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/token"
)

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
	*keystest.Issuer
	t   testing.TB
	s   *Signer
	rec *recorder
	log *keystest.Log
	cfg Config
}

func ptr[T any](v T) *T { return &v }

// anybody is a profile for uid 1000 that leaves the request free.
func anybody(name, ring string) profile.Config {
	return profile.Config{
		Name: name, Ring: ring, Allow: []profile.Rule{{UID: ptr(uint32(1000))}},
		Subject: profile.Subject{Pattern: ".+"}, Audiences: []string{"api://orders", profile.AnyName},
		Claims: profile.Claims{Allow: []string{profile.AnyName}}, TTL: profile.TTL{Default: 5 * time.Minute, Max: time.Hour},
	}
}

// newWorld has a ring and a profile for each algorithm, with an active key.
func newWorld(t testing.TB, algs ...keyring.Algorithm) *world {
	t.Helper()
	w := &world{t: t, Issuer: keystest.New(t, algs...), log: &keystest.Log{}, rec: &recorder{}}
	w.cfg = Config{Keys: w.Source, Audit: w.rec, Logger: slog.New(slog.NewJSONHandler(w.log, nil))}
	for _, alg := range algs {
		ring := string(alg)
		w.cfg.Rings = append(w.cfg.Rings, profile.Ring{Name: ring, Issuer: "main", MaxTokenTTL: time.Hour})
		w.cfg.Profiles = append(w.cfg.Profiles, anybody("p-"+ring, ring))
	}
	return w
}

// start makes the signer, gives it the snapshot and runs it until the test ends.
func (w *world) start() *world {
	w.t.Helper()
	s, err := New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, w.Accept = s, s.Accept
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	})
	s.Accept("main", w.Snap)
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

var alice = profile.Caller{Socket: "default", Known: true, Peer: unixsock.Peer{PID: 42, UID: 1000, GID: 1000, Groups: []uint32{2000}}}

// ask sends one request past HTTP.
func (w *world) ask(body string) (*api.SignResponse, *api.Problem) {
	return w.s.answer(context.Background(), alice, []byte(body))
}

// answer is one decision past HTTP: exactly one of its results is set.
func (s *Signer) answer(ctx context.Context, c profile.Caller, body []byte) (*api.SignResponse, *api.Problem) {
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
	set, err := keyring.Set(w.Snap, time.Now(), keyring.ViewAll)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := token.ParseSet(set.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.Verify(keys, raw, token.Options{Now: time.Now(), Issuer: keystest.URL})
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
