package keys

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
)

// world is a holder of the halves of one issuer.
type world struct {
	*keystest.Issuer
	t   testing.TB
	h   *Holder
	cfg Config
	log *keystest.Log
}

func newWorld(t testing.TB, algs ...keyring.Algorithm) *world {
	t.Helper()
	w := &world{Issuer: keystest.New(t, algs...), t: t, log: &keystest.Log{}}
	w.cfg = Config{Source: w.Source, Issuers: []string{"main"}, Logger: slog.New(slog.NewJSONHandler(w.log, nil))}
	return w
}

// start makes the holder, gives it the snapshot and runs it until the test ends.
func (w *world) start() *world {
	w.t.Helper()
	w.h = New(w.cfg)
	w.Accept = w.h.Accept
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.h.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run = %v", err)
		}
	})
	w.Accept("main", w.Snap)
	return w
}

// pick is the kid that signs for a ring.
func (w *world) pick(ring string) (string, *api.Problem) {
	key, prob := w.h.Views()["main"].Pick(ring, time.Now())
	if prob != nil {
		return "", prob
	}
	return key.Kid(), nil
}

func (w *world) mustPick(ring string) string {
	w.t.Helper()
	kid, prob := w.pick(ring)
	if prob != nil {
		w.t.Fatalf("pick: %v; alarms %+v", prob, w.h.Alarms(time.Now()))
	}
	return kid
}

func (w *world) wantCode(prob *api.Problem, code api.Code, text string) {
	w.t.Helper()
	if prob == nil || prob.Code != code || !strings.Contains(prob.Detail, text) {
		w.t.Errorf("problem %v, want %s with %q", prob, code, text)
	}
}

// fatal are the alarms that stop a ring.
func (w *world) fatal() []keyring.Alarm {
	return slices.DeleteFunc(w.h.Alarms(time.Now()), func(a keyring.Alarm) bool { return !a.Fatal })
}

func codes(alarms []keyring.Alarm) string {
	var out []string
	for _, a := range alarms {
		out = append(out, fmt.Sprintf("%s fatal=%v", a.Code, a.Fatal))
	}
	return strings.Join(out, ", ")
}
