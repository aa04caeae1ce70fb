package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Store keeps manifests (custody).
type Store interface {
	// Load returns the manifest and the version to save over.
	// keyring.ErrNoManifest, ErrCorrupt, ErrSchema (with the snapshot),
	// ErrUnavailable, ErrDenied.
	Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error)
	// Save writes next if the stored version is still the given one, 0 for
	// none, and returns the new version. It answers for what has happened:
	// nil means stored, also where the reply was lost; keyring.ErrConflict
	// means not stored; anything else means not known.
	Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error)
}

// Halves keeps private halves (custody). Each is written once.
type Halves interface {
	// Create generates a key pair, verifies it and deposits the private half.
	Create(ctx context.Context, issuer string, alg keyring.Algorithm, rsaBits int) (keyring.JWK, string, error)
	// Destroy returns nil when nothing of the half can be read any more.
	Destroy(ctx context.Context, issuer, handle string) error
	// List returns the kids of all halves that exist.
	List(ctx context.Context, issuer string) ([]string, error)
}

// Config is what a Rotator is made of.
type Config struct {
	Store Store
	// Halves by the custody's name, as rings name it.
	Halves map[string]Halves
	// Issuers are this replica's configurations, resolved and checked.
	Issuers []keyring.Config
	// Advance says that this replica has the role rotator: it plans and writes.
	// The others only read.
	Advance bool
	// Publishes says that it has the role publisher and reads its own targets back.
	Publishes bool
	// StateDir holds the high-water marks. Empty means that none are kept.
	StateDir string
	// Accept hands a new snapshot on. It must not block.
	Accept func(issuer string, s *keyring.Snapshot)
	// Confirmed returns the latest read-back of each target of an issuer.
	Confirmed func(issuer string) map[string]keyring.Observation
	// Damaged returns kids whose private halves were found missing, or not to
	// match; nil where nobody looks.
	Damaged func(issuer string) []string
	// Foreign returns, by target, the keys of sets that keyturn did not write
	// and may take over; nil where there can be none.
	Foreign func(issuer string) map[string][]keyring.JWK
	// Published looks what this replica's own targets say was published before,
	// and where; a zero Mark where nothing was. nil where there are no targets.
	Published func(ctx context.Context, issuer string) (keyring.Mark, string, error)
	// Now reads this host's clocks. [time.Now, and Go's monotonic clock]
	Now func() Instant
	// StoreClock is the store's own clock in its last answer; nil for a store
	// that has none.
	StoreClock func() (StoreClock, bool)
	// OnEvent and OnError tell metrics what happened; either may be nil.
	OnEvent func(issuer string, e keyring.Event)
	OnError func(op string, err error)
	Logger  *slog.Logger
}

// Rotator runs the loops of all issuers.
type Rotator struct {
	loops map[string]*loop
}

// New makes a Rotator; it starts nothing. It fails where the mark of an issuer
// cannot be read, since acting without it could go back in time.
func New(cfg Config) (*Rotator, error) {
	cfg.fill()
	r := &Rotator{loops: map[string]*loop{}}
	for _, issuer := range cfg.Issuers {
		l, err := newLoop(cfg, issuer)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", issuer.Name, err)
		}
		r.loops[issuer.Name] = l
	}
	return r, nil
}

// fill gives every func that may be called without a check something to do.
func (c *Config) fill() {
	if c.Damaged == nil {
		c.Damaged = func(string) []string { return nil }
	}
	if c.Foreign == nil {
		c.Foreign = func(string) map[string][]keyring.JWK { return nil }
	}
	if c.Published == nil {
		c.Published = func(context.Context, string) (keyring.Mark, string, error) { return keyring.Mark{}, "", nil }
	}
	if c.Now == nil {
		c.Now = bootless()
	}
	if c.StoreClock == nil {
		c.StoreClock = func() (StoreClock, bool) { return StoreClock{}, false }
	}
}

// Run keeps all issuers turning until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range r.loops {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Wake makes every loop look again soon: a target has been read back.
func (r *Rotator) Wake() {
	for _, l := range r.loops {
		l.wakeUp()
	}
}

// Retry makes every loop try its store now, whatever the backoff: there is a
// reason to think that it is back.
func (r *Rotator) Retry() {
	for _, l := range r.loops {
		select {
		case l.retry <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// Clock is a reading of this host's clocks, for an issuer: its clock_skew says
// what is a doubt.
func (r *Rotator) Clock(issuer string) Clock {
	l, ok := r.loops[issuer]
	if !ok {
		now := time.Now()
		return Clock{Early: now, Late: now, Boot: now}
	}
	return l.guard.clock(l.skew())
}

// Status is what a loop knows of its issuer.
type Status struct {
	// Snapshot is the newest that was read, nil before the first.
	Snapshot *keyring.Snapshot
	// ReadAt is when the manifest was last read.
	ReadAt time.Time
	Alarms []keyring.Alarm
}

// Status returns the state of one issuer's loop.
func (r *Rotator) Status(issuer string) Status {
	l, ok := r.loops[issuer]
	if !ok {
		return Status{}
	}
	return l.status()
}

// Alarms returns what is not as it should be, of all issuers.
func (r *Rotator) Alarms() []keyring.Alarm {
	var out []keyring.Alarm
	for _, issuer := range slices.Sorted(maps.Keys(r.loops)) {
		out = append(out, r.loops[issuer].status().Alarms...)
	}
	return out
}

// Alive returns an error when a loop has stopped turning.
func (r *Rotator) Alive() error {
	now := time.Now()
	var errs []error
	for _, l := range r.loops {
		errs = append(errs, l.alive(now))
	}
	return errors.Join(errs...)
}

// NextRun is when the schedule in force of a ring runs next after its active
// key was made active; zero where that is not known.
func (r *Rotator) NextRun(ring keyring.Ring, s *keyring.Snapshot) time.Time {
	active := s.Active(ring.Name)
	if active == nil {
		return time.Time{}
	}
	schedule, err := ParseSchedule(ring.Rotate)
	if err != nil {
		return time.Time{}
	}
	return schedule.Next(active.Activated)
}
