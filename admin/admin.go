package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
)

// ErrUnknownIssuer is what Config.AcceptManifest returns for an issuer that this
// process does not have.
var ErrUnknownIssuer = errors.New("no such issuer")

var errRole = errors.New("this process does not have the role rotator: ask one that does")

// Recorder keeps the audit log. What it cannot record is not done.
type Recorder interface {
	Append(ctx context.Context, r audit.Record) error
}

// Config is what New takes. A func that is nil has nothing to tell, unless its
// comment says more. None may block for long.
type Config struct {
	// Replica is this process: Version, Roles and StartedAt; the rest is
	// filled in when it is asked for.
	Replica api.Replica
	// Issuers are the names of the configured issuers. Snapshots of others are
	// not shown.
	Issuers []string
	// Socket names the admin socket in the audit log. [admin]
	Socket string
	// Allow says who may use the admin socket. [root and the own uid]
	Allow []Rule
	// Audit records what was asked and refused; nil where the process keeps no log.
	Audit Recorder
	// AuditOptional lets orders be carried out, as tokens are signed, while the
	// audit log cannot be written (audit.required: false).
	AuditOptional bool
	// Metrics is required; New adds to it what follows from snapshots.
	Metrics *Metrics
	// Logger is required.
	Logger *slog.Logger

	// Command carries out what an operator asks for and returns the manifest that
	// it met and the one that it made; a dry run, the one that it would make.
	// Errors: *keyring.NotSafeYetError, keyring.ErrUnknownRing, ErrUnknownKey,
	// ErrClosed, ErrNoKey; any other means that it cannot be done now or that the
	// outcome is not known. nil: this process cannot.
	Command func(ctx context.Context, cmd keyring.Command, dryRun bool) (before, after *keyring.Snapshot, err error)
	// AcceptManifest puts this replica's last manifest in the place of the stored
	// one. Errors: *keyring.LowerMarkError, keyring.ErrNotFrozen,
	// ErrUnknownIssuer; others as for Command. nil: this process cannot.
	AcceptManifest func(ctx context.Context, issuer string, dryRun, force bool) (keyring.Acceptance, error)
	// Next is when the schedule of a ring runs next; zero where that is not known.
	Next func(ring keyring.Ring, s *keyring.Snapshot) time.Time
	// ReadAt is when an issuer's manifest was last read.
	ReadAt func(issuer string) time.Time
	// Targets tells how the targets of an issuer stand.
	Targets func(issuer string) []api.Target
	// Alarms is what is wrong with manifests, rotation and targets. A Fatal one
	// means that the public set of this process is not good.
	Alarms func() []keyring.Alarm
	// SignerAlarms says why this process cannot sign: nothing means that it
	// can. nil: it does not have the role.
	SignerAlarms func() []keyring.Alarm
	// VaultExpiry is when the Vault token ends, if there is one.
	VaultExpiry func() (time.Time, bool)
	// Alive returns an error when the main loops have stopped turning.
	Alive func() error
}

// Admin answers operators. All its methods may be called concurrently.
type Admin struct {
	cfg       Config
	snapshots map[string]*atomic.Pointer[keyring.Snapshot] // fixed keys: the configured issuers
}

// New checks the configuration and starts nothing.
func New(cfg Config) (*Admin, error) {
	if cfg.Metrics == nil || cfg.Logger == nil {
		return nil, errors.New("admin: Metrics and Logger are required")
	}
	if cfg.Socket == "" {
		cfg.Socket = "admin"
	}
	if len(cfg.Allow) == 0 {
		root, own := uint32(0), uint32(os.Geteuid())
		cfg.Allow = []Rule{{UID: &root}, {UID: &own}}
	}
	for i, r := range cfg.Allow {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("listen.admin.allow[%d]: %w", i, err)
		}
	}
	cfg.fill()
	cfg.Issuers = slices.Sorted(slices.Values(cfg.Issuers))
	a := &Admin{cfg: cfg, snapshots: map[string]*atomic.Pointer[keyring.Snapshot]{}}
	for _, name := range cfg.Issuers {
		a.snapshots[name] = new(atomic.Pointer[keyring.Snapshot])
	}
	if err := cfg.Metrics.registry.Register(&collector{a}); err != nil {
		return nil, fmt.Errorf("admin: metrics of one daemon only: %w", err)
	}
	return a, nil
}

// fill gives every func that may be called without a check something to do.
func (c *Config) fill() {
	if c.Next == nil {
		c.Next = func(keyring.Ring, *keyring.Snapshot) time.Time { return time.Time{} }
	}
	if c.ReadAt == nil {
		c.ReadAt = func(string) time.Time { return time.Time{} }
	}
	if c.Targets == nil {
		c.Targets = func(string) []api.Target { return nil }
	}
	if c.Alarms == nil {
		c.Alarms = func() []keyring.Alarm { return nil }
	}
	if c.VaultExpiry == nil {
		c.VaultExpiry = func() (time.Time, bool) { return time.Time{}, false }
	}
	if c.Alive == nil {
		c.Alive = func() error { return nil }
	}
	if c.Command == nil {
		c.Command = func(context.Context, keyring.Command, bool) (*keyring.Snapshot, *keyring.Snapshot, error) {
			return nil, nil, errRole
		}
	}
	if c.AcceptManifest == nil {
		c.AcceptManifest = func(context.Context, string, bool, bool) (keyring.Acceptance, error) {
			return keyring.Acceptance{}, errRole
		}
	}
}

// Accept hands on a snapshot, to be shown from now on. It never blocks.
func (a *Admin) Accept(issuer string, s *keyring.Snapshot) {
	p, ok := a.snapshots[issuer]
	if !ok || s == nil {
		return
	}
	p.Store(s)
	a.cfg.Metrics.expect(issuer, s)
}

// snapshot is the newest of an issuer, nil before the first.
func (a *Admin) snapshot(issuer string) *keyring.Snapshot {
	if p, ok := a.snapshots[issuer]; ok {
		return p.Load()
	}
	return nil
}
