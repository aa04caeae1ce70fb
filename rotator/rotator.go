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

// Rotation tells what a rotation did, or would do.
type Rotation struct {
	// Retired is the key that signed until now, nil if none did.
	Retired *keyring.Key
	Active  *keyring.Key
}

// ErrUnknownRing reports a ring that is not in force.
var ErrUnknownRing = errors.New("no such ring")

// Rotate promotes the standby of a ring now, if that is safe:
// *keyring.NotSafeYetError says when it will be. A dry run changes nothing.
func (r *Rotator) Rotate(ctx context.Context, ring string, dryRun bool) (Rotation, error) {
	for _, l := range r.loops {
		if !l.hasRing(ring) {
			continue
		}
		if !l.cfg.Advance {
			return Rotation{}, fmt.Errorf("this process does not have the role rotator: ask one that does: %w", keyring.ErrUnavailable)
		}
		return l.command(ctx, ring, dryRun)
	}
	return Rotation{}, fmt.Errorf("ring %q: %w", ring, ErrUnknownRing)
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
