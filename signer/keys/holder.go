package keys

import (
	"context"
	"crypto"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// Source hands out the private halves, opaque. Its errors wrap those of
// package keyring. It is called from one goroutine.
type Source interface {
	Signer(ctx context.Context, issuer string, k keyring.Key) (crypto.Signer, error)
}

// Config is what a Holder is made of.
type Config struct {
	Source Source
	// Issuers are known from the beginning: that one has no snapshot yet alarms.
	Issuers []string
	// Logger learns of loaded and missing halves; nil discards it.
	Logger *slog.Logger
	// Late is the later of this host's wall clock and of what its boot clock
	// makes of the last reading that was sound: leases end by it. It must not
	// block. [time.Now]
	Late func(issuer string) time.Time
	// Wake is called when a private half was found missing or wrong, so that
	// the rotator sees it in Damaged. It must not block. [nothing]
	Wake func()
}

// Holder holds the halves in memory. It is safe for many goroutines.
type Holder struct {
	source      Source
	log         *slog.Logger
	late        func(issuer string) time.Time
	wakeRotator func()

	// views is what requests see.
	views atomic.Pointer[Views]
	// wake tells Run that there may be halves to load.
	wake chan struct{}

	// mu makes the changes one after the other.
	mu      sync.Mutex
	issuers map[string]*issuer
	// paused holds, by custody, until when an unavailable one is left alone.
	paused map[string]time.Time
}

// New makes a Holder without any half and starts nothing.
func New(cfg Config) *Holder {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Late == nil {
		cfg.Late = func(string) time.Time { return time.Now() }
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	h := &Holder{
		source: cfg.Source, log: cfg.Logger, late: cfg.Late, wakeRotator: cfg.Wake,
		wake: make(chan struct{}, 1), issuers: map[string]*issuer{}, paused: map[string]time.Time{},
	}
	for _, name := range cfg.Issuers {
		h.issuers[name] = h.newIssuer(name)
	}
	h.publish()
	return h
}

// Views are the issuers by name, as they are now.
func (h *Holder) Views() Views { return *h.views.Load() }

// issuer is what is known of an issuer; Holder.mu guards it.
type issuer struct {
	name string
	late func() time.Time
	snap *keyring.Snapshot // nil before the first Accept
	// loaded and failed hold the halves, or why there is none, by kid.
	loaded map[string]*token.Signer
	failed map[string]failure
	// view is made of the above, anew after each change.
	view *View
}

// failure is why a private half is not in memory.
type failure struct {
	err   error
	since time.Time
	next  time.Time // not tried again before
}

func (h *Holder) newIssuer(name string) *issuer {
	is := &issuer{
		name: name, late: func() time.Time { return h.late(name) },
		loaded: map[string]*token.Signer{}, failed: map[string]failure{},
	}
	is.view = &View{Issuer: name, late: is.late}
	return is
}

// Accept takes a snapshot of an issuer. It never blocks on I/O: keys that it
// names and that are not in memory yet are loaded by Run. A snapshot of a lower generation than one
// already seen, or of another lineage, is dropped (design: never act below a
// generation that was seen).
func (h *Holder) Accept(issuer string, snap *keyring.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	is := h.issuers[issuer]
	if is == nil {
		is = h.newIssuer(issuer)
		h.issuers[issuer] = is
	}
	if old := is.snap; old != nil {
		switch {
		case old.Lineage != snap.Lineage:
			h.log.Error("dropped a snapshot of another lineage", "issuer", issuer, "lineage", snap.Lineage, "seen", old.Lineage)
			return
		case snap.Generation < old.Generation:
			h.log.Warn("dropped an older snapshot", "issuer", issuer, "generation", snap.Generation, "seen", old.Generation)
			return
		case snap.Generation > old.Generation:
			clear(h.paused) // the store has answered: it is worth another try
		}
	}
	is.snap = snap
	h.rebuild(is, time.Now())
	h.publish()
	h.tellRun()
}

// tellRun says that there may be keys to load.
func (h *Holder) tellRun() {
	select {
	case h.wake <- struct{}{}:
	default: // it knows
	}
}

// rebuild drops what may no longer be in memory and makes the view of an
// issuer. The caller holds mu.
func (h *Holder) rebuild(is *issuer, now time.Time) {
	for kid := range is.loaded {
		if k := is.snap.Key(kid); k == nil || !mayHold(k, now) {
			delete(is.loaded, kid)
			h.log.Info("dropped private half", "issuer", is.name, "kid", kid)
		}
	}
	for kid := range is.failed {
		if k := is.snap.Key(kid); k == nil || !is.wants(k, now) {
			delete(is.failed, kid)
		}
	}
	v := &View{Issuer: is.name, Snapshot: is.snap, late: is.late, rings: map[string]ringView{}, failed: maps.Clone(is.failed)}
	for i := range is.snap.Keys {
		ring := is.snap.Keys[i].Ring
		if _, done := v.rings[ring]; !done {
			v.rings[ring] = is.ring(ring, now)
		}
	}
	for _, r := range is.snap.Config.Rings {
		if _, done := v.rings[r.Name]; !done {
			v.rings[r.Name] = ringView{}
		}
	}
	is.view = v
}

// publish shows the present to the requests. The caller holds mu.
func (h *Holder) publish() {
	next := make(Views, len(h.issuers))
	for name, is := range h.issuers {
		next[name] = is.view
	}
	h.views.Store(&next)
}

// wanted reports whether a half is to be loaded: the active key's and those
// that may become active.
func wanted(k *keyring.Key, now time.Time) bool {
	st := k.State(now)
	return st == keyring.Active || st == keyring.Standby
}

// wants is wanted, and a retired key that steps in, or whose half was found
// damaged: that is looked for again, since a rollback must not choose it before
// it is whole.
func (is *issuer) wants(k *keyring.Key, now time.Time) bool {
	return wanted(k, now) || mayHold(k, now) && (is.damaged(k.JWK.Kid) || is.stepsIn(k))
}

// stepsIn reports whether a retired key signs on, within its lease, for an
// active one whose half is gone or wrong (keyring.Snapshot.Signers). Who was
// there at the rotation has its half; who starts later loads it.
func (is *issuer) stepsIn(k *keyring.Key) bool {
	active := is.snap.Active(k.Ring)
	return active != nil && !k.Activated.IsZero() && is.damaged(active.JWK.Kid)
}

func (is *issuer) damaged(kid string) bool {
	f, failed := is.failed[kid]
	return failed && isDamaged(f.err)
}

// mayHold reports whether a half may stay in memory: a retired key's does
// until its sign_until, since it may have to step in.
func mayHold(k *keyring.Key, now time.Time) bool {
	return wanted(k, now) || k.State(now) == keyring.Retired && now.Before(k.SignUntil)
}
