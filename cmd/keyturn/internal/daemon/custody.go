package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/custody/vaultkv"
	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
	"github.com/keyturn/keyturn/signer/keys"
)

// setupTimeout bounds what keyturn dev waits for Vault.
const setupTimeout = 20 * time.Second

// custody is where manifests and private halves live, as each part sees it.
type custody struct {
	store  rotator.Store
	halves map[string]rotator.Halves
	keys   keys.Source
	// heads is where the audit log is anchored.
	heads headStore
	// expiry is when the login ends, if there is one.
	expiry func() (time.Time, bool)
	// clock is the store's own, nil where it has none.
	clock func() (rotator.StoreClock, bool)
	// parts live as long as anybody uses the custody.
	parts []part
	close func()
}

// openCustody calls back after each login, where there is one.
func openCustody(cfg *configs.Config, log *slog.Logger, onLogin func()) (*custody, error) {
	if cfg.Store == configs.StoreLocal {
		return openLocal(cfg, log)
	}
	return openVault(cfg, log, onLogin)
}

func openLocal(cfg *configs.Config, log *slog.Logger) (*custody, error) {
	key, err := local.ReadKeyFile(cfg.Local.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("local.key_file: %w", err)
	}
	c, err := local.Open(local.Config{Dir: cfg.Local.Dir, Key: key})
	if err != nil {
		return nil, fmt.Errorf("local.dir: %w", err)
	}
	return &custody{
		store: c, halves: map[string]rotator.Halves{configs.CustodyLocal: c}, keys: c, heads: c,
		expiry: func() (time.Time, bool) { return time.Time{}, false },
		close: func() {
			if err := c.Close(); err != nil {
				log.Error("local custody was not closed", "error", err)
			}
		},
	}, nil
}

func openVault(cfg *configs.Config, log *slog.Logger, onLogin func()) (*custody, error) {
	session, err := newSession(cfg, log, onLogin)
	if err != nil {
		return nil, err
	}
	c := vaultkv.New(vaultkv.Config{Session: session, Mount: cfg.Vault.Mount, Logger: log})
	checked := &checkedStore{Custody: c, fault: make(chan error, 1)}
	return &custody{
		store: checked, halves: map[string]rotator.Halves{configs.CustodyVaultKV: c}, keys: c, heads: c, expiry: session.Expiry, clock: storeClock(session),
		parts: []part{{"vault session", session.Run}, {"vault mount", checked.run}},
		close: func() {},
	}, nil
}

func newSession(cfg *configs.Config, log *slog.Logger, onLogin func()) (*vaultsession.Session, error) {
	v := cfg.Vault
	return vaultsession.New(vaultsession.Config{
		Address: v.Address, Namespace: v.Namespace, CACertFile: v.CACertFile, Timeout: time.Duration(v.Timeout), Insecure: v.Insecure,
		Auth: vaultsession.Auth{
			Method: v.Auth.Method, Mount: v.Auth.Mount, RoleIDFile: v.Auth.RoleIDFile, SecretIDFile: v.Auth.SecretIDFile,
			TokenFile: v.Auth.TokenFile, Token: v.Auth.Token.Reveal,
		},
		OnLogin: onLogin, Logger: log,
	})
}

// checkedStore looks at the mount before it is first used: on KV v1, or
// without cas_required, every replica would silently overwrite the others.
// Vault being away is no fault of the mount: it is looked at when Vault is back.
type checkedStore struct {
	*vaultkv.Custody
	sound atomic.Bool
	fault chan error
}

// Load implements rotator.Store.
func (s *checkedStore) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	if !s.sound.Load() {
		if err := s.Check(ctx); err != nil {
			if !errors.Is(err, keyring.ErrUnavailable) && !errors.Is(err, keyring.ErrDenied) && ctx.Err() == nil {
				select {
				case s.fault <- err:
				default: // it has been told
				}
			}
			return nil, 0, err
		}
		s.sound.Store(true)
	}
	return s.Custody.Load(ctx, issuer)
}

// run ends the daemon when the mount turns out to be unfit.
func (s *checkedStore) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.fault:
		return err
	}
}

// SetupVault makes the mount of a configuration as keyturn needs it: what
// `keyturn dev --vault` does first. It needs a token that may do so.
func SetupVault(ctx context.Context, cfg *configs.Config) error {
	log := slog.New(slog.DiscardHandler) // the error says it all
	session, err := newSession(cfg, log, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- session.Run(running) }()
	err = vaultkv.New(vaultkv.Config{Session: session, Mount: cfg.Vault.Mount, Logger: log}).Setup(ctx)
	stop()
	return errors.Join(err, <-ended)
}
