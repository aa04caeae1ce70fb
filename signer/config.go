package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/gate"
)

// KeySource hands out the private halves, opaque. Its errors wrap those of
// package keyring. It is called from one goroutine.
type KeySource interface {
	Signer(ctx context.Context, issuer string, k keyring.Key) (crypto.Signer, error)
}

// Recorder keeps the decisions. When AppendAll returns nil all records are
// kept, else none is: only then are tokens released. It is called from many goroutines.
type Recorder interface {
	AppendAll(ctx context.Context, records []audit.Record) error
}

// Config is what a Signer is made of.
type Config struct {
	Keys KeySource
	// Audit is required unless AuditOptional says otherwise.
	Audit Recorder
	// AuditOptional releases tokens although their record could not be written.
	AuditOptional bool
	// Rings are those of the configuration; profiles name them.
	Rings    []Ring
	Profiles []Profile
	// Logger learns of loaded and missing keys; nil discards it.
	Logger *slog.Logger
	// Observe is told of every decision, for metrics; nil is fine. It must not block.
	Observe func(Outcome)
	// Late is the later of this host's wall clock and of what its boot clock
	// makes of the last reading that was sound: leases end by it. It must not
	// block. [time.Now]
	Late func(issuer string) time.Time
	// Wake is called when a private half was found missing or wrong, so that
	// the rotator sees it in Damaged. It must not block. [nothing]
	Wake func()
}

// Ring is what the signer has to know of a ring before it has a snapshot.
type Ring struct {
	Name   string
	Issuer string
	// MaxTokenTTL bounds the profiles. What a key may sign in the end is in the
	// manifest.
	MaxTokenTTL time.Duration
}

// Outcome is one decision, without anything that a caller chose.
type Outcome struct {
	// Issuer, Ring and Profile are empty where the profile is unknown or the
	// caller may not use it.
	Issuer  string
	Ring    string
	Profile string
	// Algorithm is that of the key that signed.
	Algorithm string
	// Code is empty when a token was released.
	Code api.Code
	Took time.Duration
}

// Signer signs for the callers of the sign sockets.
type Signer struct {
	keys          KeySource
	audit         Recorder
	auditOptional bool
	rings         map[string]Ring
	log           *slog.Logger
	observe       func(Outcome)
	late          func(issuer string) time.Time
	wakeRotator   func()

	// state is what requests see.
	state atomic.Pointer[state]
	// auditBroken is since when no record could be written; nil while all is well.
	auditBroken atomic.Pointer[time.Time]
	// turns share the processors among callers, batches the memory.
	turns, batches *gate.Turns
	limiter        *gate.Limiter
	// wake tells Run that there may be keys to load.
	wake chan struct{}

	// mu makes the changes of state one after the other.
	mu       sync.Mutex
	profiles map[string]*profile
	issuers  map[string]*issuer
	// paused holds, by custody, until when an unavailable one is left alone.
	paused map[string]time.Time
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
	if cfg.Late == nil {
		cfg.Late = func(string) time.Time { return time.Now() }
	}
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	s := &Signer{
		keys: cfg.Keys, audit: cfg.Audit, auditOptional: cfg.AuditOptional,
		rings: map[string]Ring{}, log: cfg.Logger, observe: cfg.Observe,
		late: cfg.Late, wakeRotator: cfg.Wake,
		turns: gate.NewTurns(gate.TurnsConfig{}), batches: gate.NewTurns(gate.TurnsConfig{Slots: maxBatches(), SlotsOfOne: maxBatches() * 3 / 4}), limiter: gate.NewLimiter(), wake: make(chan struct{}, 1),
		issuers: map[string]*issuer{}, paused: map[string]time.Time{},
	}
	for _, r := range cfg.Rings {
		if _, twice := s.rings[r.Name]; twice || r.Name == "" || r.Issuer == "" {
			return nil, fmt.Errorf("signer: ring %q of issuer %q: names are missing or appear twice", r.Name, r.Issuer)
		}
		s.rings[r.Name] = r
		if s.issuers[r.Issuer] == nil {
			s.issuers[r.Issuer] = s.newIssuer(r.Issuer)
		}
	}
	if err := s.SetProfiles(cfg.Profiles); err != nil {
		return nil, err
	}
	return s, nil
}

// SetProfiles replaces all profiles at once, or none: all faults are joined in
// the error, and the old ones stay.
func (s *Signer) SetProfiles(list []Profile) error {
	compiled, err := compileAll(list, s.rings)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profiles = compiled
	s.publish()
	return nil
}
