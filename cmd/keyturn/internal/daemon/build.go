package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/admin"
	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/harden"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
	"github.com/keyturn/keyturn/rotator"
	"github.com/keyturn/keyturn/signer"
)

// daemon is everything that one process runs. Parts that the roles do not
// include are nil.
type daemon struct {
	options   Options
	log       *slog.Logger
	issuers   []keyring.Config
	custody   *custody
	metrics   *admin.Metrics
	ledger    *ledger // nil where no decisions are recorded
	signer    *signer.Signer
	publisher *publisher.Publisher
	rotator   *rotator.Rotator
	admin     *admin.Admin
	anchors   *anchors // nil where no log is anchored

	public      net.Listener // nil where no set is served
	certificate atomic.Pointer[tls.Certificate]
	listeners   []net.Listener
	sockets     bound
	stopping    atomic.Bool
	reloading   reloading
	// confined is this process behind its rules; nil where it is not.
	confined *harden.Confined

	// backs end last, middles before them.
	backs, middles []part
}

// build makes every part and starts none. After an error nothing stays open.
func build(o Options) (d *daemon, err error) {
	d = &daemon{options: o, log: o.Logger}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for _, step := range []func() error{
		d.resolve, d.makeStateDir, d.openCustody, d.openAudit, d.makeSigner, d.makePublisher, d.makeRotator, d.makeAdmin,
	} {
		if err := step(); err != nil {
			return d, err // what was opened until then is closed above
		}
	}
	return d, nil
}

// close releases what build opened.
func (d *daemon) close() {
	d.closeListeners()
	if d.custody != nil {
		d.custody.close()
	}
	if err := d.ledger.close(); err != nil {
		d.log.Error("audit log was not closed", "error", err)
	}
}

func (d *daemon) resolve() (err error) {
	cfg := d.options.Config
	d.metrics = admin.NewMetrics(admin.MetricsConfig{Version: d.options.Version, Profiles: profileNames(cfg)})
	d.issuers, err = resolve(cfg)
	return err
}

// makeStateDir makes the last element of state_dir; a missing parent is a
// volume that is not mounted, or a typing error. It tries whether files can be
// made there: a mark that is never kept protects from nothing.
func (d *daemon) makeStateDir() error {
	dir := d.options.Config.StateDir
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state_dir: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return fmt.Errorf("state_dir: no file can be made there, and what was seen last could not survive a restart: it must be a folder that uid %d may write: %w", os.Geteuid(), err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

func (d *daemon) openCustody() (err error) {
	d.custody, err = openCustody(d.options.Config, d.log, d.retry)
	if err != nil {
		return err
	}
	d.backs = append(d.backs, d.custody.parts...)
	return nil
}

func (d *daemon) openAudit() error {
	cfg := d.options.Config
	if cfg.Audit.File == "" {
		return nil // configs requires one where it is needed
	}
	d.ledger = &ledger{path: cfg.Audit.File, required: cfg.Audit.Required, logger: d.log}
	err := d.ledger.open()
	if err != nil && cfg.Audit.Required {
		return err
	}
	if err != nil {
		d.log.Error("going on without an audit log, as audit.required: false says", "tried_again_every", lookInterval.String(), "error", err)
	}
	d.makeAnchors()
	d.judgeAuditFolder()
	return nil
}

func (d *daemon) makeSigner() (err error) {
	cfg := d.options.Config
	if !cfg.Has(configs.Signer) {
		return nil
	}
	d.signer, err = signer.New(signer.Config{
		Keys: d.custody.keys, Audit: d.ledger.recorder(), AuditOptional: !cfg.Audit.Required,
		Rings: rings(cfg), Profiles: profiles(cfg), Logger: d.log,
		Observe: func(o signer.Outcome) {
			code := string(o.Code)
			if code == "" {
				code = "ok"
			}
			d.metrics.Signed(o.Profile, o.Algorithm, code, o.Took)
		},
		Late: d.late, Wake: func() { d.rotator.Wake() },
	})
	if err != nil {
		return err
	}
	d.middles = append(d.middles, part{"signer", d.signer.Run})
	return nil
}

func (d *daemon) makePublisher() (err error) {
	cfg := d.options.Config
	c := publisher.Config{
		Issuers: targets(cfg), Interval: time.Duration(cfg.SyncInterval),
		Wake: func() { d.rotator.Wake() }, Read: d.read, Observe: d.metrics.Published, Drifted: d.metrics.Drifted,
		Clock: d.clock, Logger: d.log,
	}
	if cfg.Has(configs.Publisher) && cfg.Listen.Public.Addr != "" {
		certificate, err := loadCertificate(cfg.Listen.Public.TLS)
		if err != nil {
			return err
		}
		d.certificate.Store(certificate)
		if d.public, err = d.tcp(cfg.Listen.Public.Addr, "public", publicConns); err != nil {
			return fmt.Errorf("listen.public: %w", err)
		}
		c.Self.Dial = dialSelf(d.public)
		if certificate != nil {
			c.Self.Leaf = d.leaf
		}
	}
	d.publisher, err = publisher.New(c)
	return err
}

func (d *daemon) makeRotator() (err error) {
	cfg := d.options.Config
	d.rotator, err = rotator.New(rotator.Config{
		Store: countingStore{d.custody.store, d.metrics.Conflicted}, Halves: d.custody.halves, Issuers: d.issuers,
		Advance: cfg.Has(configs.Rotator), Publishes: cfg.Has(configs.Publisher), StateDir: cfg.StateDir,
		Accept: d.accept, Confirmed: d.publisher.Confirmed, Foreign: d.publisher.Foreign, Published: d.publisher.Published,
		Damaged: d.damaged, Now: d.bootClock(), StoreClock: d.custody.clock,
		OnEvent: d.metrics.Event, OnError: d.metrics.StoreError, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.middles = append(d.middles, part{"rotator", d.rotator.Run})
	return nil
}

// accept hands a snapshot on. The signer comes first: what it may not sign any
// more must not be signed while targets are being written.
func (d *daemon) accept(issuer string, s *keyring.Snapshot) {
	if d.signer != nil {
		d.signer.Accept(issuer, s)
	}
	d.publisher.Accept(issuer, s)
	d.admin.Accept(issuer, s)
}

// read is what the store was last seen to hold, and when.
func (d *daemon) read(issuer string) (*keyring.Snapshot, time.Time) {
	s := d.rotator.Status(issuer)
	return s.Snapshot, s.ReadAt
}

func (d *daemon) makeAdmin() (err error) {
	cfg := d.options.Config
	c := admin.Config{
		Replica: api.Replica{Version: d.options.Version, Roles: roleNames(cfg), StartedAt: time.Now().UTC()},
		Allow:   adminRules(cfg), Audit: d.ledger.recorder(), AuditOptional: !cfg.Audit.Required, Metrics: d.metrics, Logger: d.log,
		Next: d.rotator.NextRun, Targets: d.targetStatus, VaultExpiry: d.custody.expiry, Alive: d.rotator.Alive,
		ReadAt: func(issuer string) time.Time { return d.rotator.Status(issuer).ReadAt },
		Alarms: d.alarms,
	}
	if cfg.Has(configs.Rotator) {
		c.Command, c.AcceptManifest = d.command, d.acceptManifest
	}
	for _, i := range cfg.Issuers {
		c.Issuers = append(c.Issuers, i.Name)
	}
	if d.signer != nil {
		c.SignerAlarms = func() []keyring.Alarm { return d.signer.Ready(time.Now()) }
	}
	if d.admin, err = admin.New(c); err != nil {
		return err
	}
	d.middles = append(d.middles, part{"admin", d.admin.Run})
	return nil
}

// alarms is all that is not as it should be, but for what keeps the signer from
// signing.
func (d *daemon) alarms() []keyring.Alarm {
	out := append(d.rotatorAlarms(), d.publisher.Alarms()...)
	out = append(out, d.confinementAlarms()...)
	out = append(out, d.anchors.Alarms(time.Now())...)
	out = append(out, d.ledger.Alarms()...)
	out = append(out, d.reloadAlarms()...)
	out = append(out, d.socketAlarms(time.Now())...)
	if d.signer != nil {
		for _, a := range d.signer.Alarms(time.Now()) {
			// Of a log that is not required the ledger knows more.
			if !a.Fatal && a.Code != codeAuditFailed {
				out = append(out, a)
			}
		}
	}
	return out
}

// rotatorAlarms leaves out what the signer of this process tells as well: that
// a ring has no key yet, which is fatal to the signer.
func (d *daemon) rotatorAlarms() []keyring.Alarm {
	if d.signer == nil {
		return d.rotator.Alarms()
	}
	told := d.signer.Alarms(time.Now())
	return slices.DeleteFunc(d.rotator.Alarms(), func(a keyring.Alarm) bool {
		return a.Code == string(api.NoActiveKey) && slices.ContainsFunc(told, func(s keyring.Alarm) bool {
			return s.Code == a.Code && s.Issuer == a.Issuer && s.Ring == a.Ring
		})
	})
}

func roleNames(cfg *configs.Config) []string {
	var out []string
	for _, r := range cfg.Roles {
		out = append(out, string(r))
	}
	return out
}

func adminRules(cfg *configs.Config) []admin.Rule {
	var out []admin.Rule
	for _, c := range cfg.Listen.Admin.Allow {
		out = append(out, admin.Rule{UID: c.UID, GID: c.GID})
	}
	return out
}

// command carries out what an operator asks of a manifest.
func (d *daemon) command(ctx context.Context, cmd keyring.Command, dryRun bool) (before, after *keyring.Snapshot, err error) {
	r, err := d.rotator.Command(ctx, cmd, dryRun)
	return r.Before, r.After, err
}

func (d *daemon) acceptManifest(ctx context.Context, issuer string, dryRun, force bool) (keyring.Acceptance, error) {
	a, err := d.rotator.Accept(ctx, issuer, dryRun, force)
	if errors.Is(err, rotator.ErrUnknownIssuer) {
		err = admin.ErrUnknownIssuer
	}
	return a, err
}

func (d *daemon) targetStatus(issuer string) []api.Target {
	var out []api.Target
	for _, s := range d.publisher.Status(issuer) {
		t := api.Target{
			Name: s.Name, Kind: string(s.Kind), Location: s.Location, Required: s.Required,
			Generation: s.Generation, ReadBackAt: s.ReadBackAt, ServeUntil: s.ServeUntil,
		}
		if s.Err != nil {
			t.Error = s.Err.Error()
		}
		out = append(out, t)
	}
	return out
}
