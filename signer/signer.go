package signer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/gate"
	"github.com/keyturn/keyturn/signer/keys"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/socket"
)

// Signer signs for the callers of the sign sockets.
type Signer struct {
	keys          *keys.Holder
	audit         Recorder
	auditOptional bool
	known         profile.Known
	log           *slog.Logger
	observe       func(Outcome)

	// profiles are read once by a request.
	profiles atomic.Pointer[profile.Set]
	// auditBroken is since when no record could be written; nil while all is well.
	auditBroken atomic.Pointer[time.Time]
	// turns share the processors among callers, batches the memory.
	turns, batches *gate.Turns
	limiter        *gate.Limiter
}

// New makes a Signer and starts nothing. It refuses profiles that SetProfiles
// would refuse.
func New(cfg Config) (*Signer, error) {
	switch {
	case cfg.Keys == nil:
		return nil, errors.New("signer: no source of keys")
	case cfg.Audit == nil && !cfg.AuditOptional:
		return nil, errors.New("signer: no audit log, and it is not optional")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Outcome) {}
	}
	s := &Signer{
		audit: cfg.Audit, auditOptional: cfg.AuditOptional, known: profile.Known{Rings: cfg.Rings},
		log: cfg.Logger, observe: cfg.Observe, limiter: gate.NewLimiter(), turns: gate.NewTurns(gate.TurnsConfig{}),
		batches: gate.NewTurns(gate.TurnsConfig{Slots: maxBatches(), SlotsOfOne: maxBatches() * 3 / 4}),
	}
	seen := map[string]bool{}
	var issuers []string
	for _, r := range cfg.Rings {
		if seen[r.Name] || r.Name == "" || r.Issuer == "" {
			return nil, fmt.Errorf("signer: ring %q of issuer %q: names are missing or appear twice", r.Name, r.Issuer)
		}
		seen[r.Name] = true
		issuers = append(issuers, r.Issuer)
	}
	s.keys = keys.New(keys.Config{Source: cfg.Keys, Issuers: issuers, Logger: cfg.Logger, Late: cfg.Late, Wake: cfg.Wake})
	if err := s.SetProfiles(cfg.Profiles); err != nil {
		return nil, err
	}
	return s, nil
}

// SetProfiles replaces all profiles at once, or none: all faults are joined in
// the error, and the old ones stay.
func (s *Signer) SetProfiles(list []profile.Config) error {
	compiled, err := profile.Compile(list, s.known)
	if err != nil {
		return err
	}
	s.profiles.Store(&compiled)
	return nil
}

// Run loads private halves as snapshots name them and drops those whose time
// has passed, until the context ends. It returns nil.
func (s *Signer) Run(ctx context.Context) error { return s.keys.Run(ctx) }

// Accept takes a snapshot of an issuer, and never blocks on I/O (keys.Holder).
func (s *Signer) Accept(issuer string, snap *keyring.Snapshot) { s.keys.Accept(issuer, snap) }

// Damaged are the kids of an issuer whose private halves were found missing, or
// not to match, when they were last looked for, sorted.
func (s *Signer) Damaged(issuer string) []string { return s.keys.Damaged(issuer) }

// Retry tries at once what could not be loaded because the store was away: it
// may be back.
func (s *Signer) Retry() { s.keys.Retry() }

// Ready lists what keeps this process from signing; none means that it can.
func (s *Signer) Ready(now time.Time) []keyring.Alarm {
	return slices.DeleteFunc(s.Alarms(now), func(a keyring.Alarm) bool { return !a.Fatal })
}

// Alarms lists all that is not as it should be, sorted. The fatal ones stop a
// ring, or everything.
func (s *Signer) Alarms(now time.Time) []keyring.Alarm {
	out := s.keys.Alarms(now)
	since := s.auditBroken.Load()
	if since == nil {
		return out
	}
	return slices.Insert(out, 0, keyring.Alarm{ // of no issuer: the first
		Code: "audit_failed", Since: *since, Fatal: !s.auditOptional,
		Message: "the audit log cannot be written, see the log for the reason; while it is required nothing is signed",
	})
}

// Serve answers a sign socket until the context ends, then drains it within
// socket.DrainTime and closes the listener.
func (s *Signer) Serve(ctx context.Context, ln net.Listener, name string) error {
	return socket.Serve(ctx, ln, socket.Config{Name: name, Handler: s.Handler(name), Logger: s.log})
}
