package rotator_test

import (
	"context"
	"log/slog"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

func minutes(n int) keyring.Duration { return keyring.Duration(n) * keyring.Duration(time.Minute) }

// hourly is an issuer whose ring rotates at every full hour. A new key waits
// 15m10s, the lease is 20m + 2m30s.
func hourly() keyring.Config {
	return keyring.Config{
		Name: "main", URL: "https://tokens.example.com", Revision: 1,
		ConsumerCache: minutes(15), JWKSMaxAge: minutes(5), Leeway: minutes(1), OutageBudget: minutes(20),
		ClockSkew: keyring.Duration(10 * time.Second), SyncInterval: minutes(1), MaxKeys: 100,
		Targets: []keyring.Target{{Name: "bucket", Kind: keyring.TargetBucket, Required: true}},
		Rings:   []keyring.Ring{{Name: "web", Algorithm: keyring.EdDSA, Custody: "vaultkv", Rotate: "0 * * * *", MaxTokenTTL: minutes(10)}},
	}
}

// try makes a replica; with changes its configuration before it is made.
func (w *world) try(with ...func(*rotator.Config)) (*replica, error) {
	r := &replica{world: w, done: make(chan struct{})}
	cfg := rotator.Config{
		Store: r, Halves: map[string]rotator.Halves{"vaultkv": r}, Issuers: []keyring.Config{hourly()}, Advance: true, Publishes: true,
		Accept: r.accept, Confirmed: r.confirmed, Logger: slog.New(slog.DiscardHandler),
		OnEvent: func(_ string, e keyring.Event) {
			r.rec.Lock()
			defer r.rec.Unlock()
			r.events = append(r.events, e)
		},
		OnError: func(op string, err error) {
			r.rec.Lock()
			defer r.rec.Unlock()
			r.errors = append(r.errors, op+": "+err.Error())
		},
	}
	for _, f := range with {
		f(&cfg)
	}
	var err error
	r.rot, err = rotator.New(cfg)
	return r, err
}

// start makes a replica and lets it run.
func (w *world) start(with ...func(*rotator.Config)) *replica {
	w.t.Helper()
	r, err := w.try(with...)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.run()
}

func (r *replica) run() *replica {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel = cancel
	go func() {
		defer close(r.done)
		if err := r.rot.Run(ctx); err != nil {
			r.t.Errorf("Run: %v", err)
		}
	}()
	return r
}

// startBlind starts a replica whose targets show nothing yet.
func (w *world) startBlind() *replica {
	w.t.Helper()
	r, err := w.try()
	if err != nil {
		w.t.Fatal(err)
	}
	r.blind = true
	return r.run()
}

// stop ends a replica and waits for it.
func (r *replica) stop() {
	r.cancel()
	<-r.done
}

func (r *replica) accept(issuer string, s *keyring.Snapshot) {
	r.rec.Lock()
	defer r.rec.Unlock()
	if n := len(r.accepted); n > 0 && s.Generation <= r.accepted[n-1].Generation {
		r.t.Errorf("generation %d is handed on after %d", s.Generation, r.accepted[n-1].Generation)
	}
	if issuer != "main" || s.Config.Name != "main" {
		r.t.Errorf("handed on for issuer %q: %q", issuer, s.Config.Name)
	}
	r.accepted = append(r.accepted, s)
}

// confirmed reads back what the replica would have published at once.
func (r *replica) confirmed(string) map[string]keyring.Observation {
	r.rec.Lock()
	defer r.rec.Unlock()
	if len(r.accepted) == 0 || r.blind {
		return nil
	}
	set, err := keyring.Set(r.accepted[len(r.accepted)-1], time.Now(), keyring.ViewAll)
	if err != nil {
		r.t.Error(err)
	}
	return map[string]keyring.Observation{"bucket": {At: time.Now(), Kids: set.Kids}}
}

// blinded says whether the replica's targets show nothing.
func (r *replica) blinded(yes bool) {
	r.rec.Lock()
	defer r.rec.Unlock()
	r.blind = yes
}

func (r *replica) seen(kind keyring.EventKind) int {
	r.rec.Lock()
	defer r.rec.Unlock()
	n := 0
	for _, e := range r.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// alarms are the codes of what is wrong now.
func (r *replica) alarms() []string {
	var codes []string
	for _, a := range r.rot.Alarms() {
		codes = append(codes, a.Code)
	}
	return codes
}

// sleep lets simulated time pass and everything that is due in it happen.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantWhole checks what every history must come back to: one active key and
// one standby, whose halves are the only ones with those of retired keys.
func (w *world) wantWhole() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stored()
	if s == nil {
		w.t.Fatal("there is no manifest")
	}
	if s.Active("web") == nil || s.Standby("web") == nil {
		w.t.Errorf("active %v, standby %v", s.Active("web"), s.Standby("web"))
	}
	if len(w.lineages) != 1 {
		w.t.Errorf("lineages %q", w.lineages)
	}
	named := map[string]bool{}
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Closed.IsZero() {
			named[k.JWK.Kid] = true
			if !w.halves[k.JWK.Kid] {
				w.t.Errorf("the half of the %s key %s is lost", k.State(time.Now()), k.JWK.Kid)
			}
		}
	}
	for kid := range w.halves {
		if !named[kid] {
			w.t.Errorf("the half of %s lies about", kid)
		}
	}
	if len(s.Orphans) != 0 {
		w.t.Errorf("orphans %v", s.Orphans)
	}
}

// turned is what a rotation did: the key that signed until then, nil if none
// did, and the one that signs now.
func turned(r rotator.Result, ring string) (retired, active *keyring.Key) {
	if r.After == nil {
		return nil, nil
	}
	if before := r.Before.Active(ring); before != nil {
		retired = r.After.Key(before.JWK.Kid)
	}
	return retired, r.After.Active(ring)
}
