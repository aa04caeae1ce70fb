package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/configs"
	names "github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/custody/vaultkv"
)

// ReadAnchors reads where a replica's audit log was anchored, at all issuers of
// a configuration, by time. It does not disturb a daemon that runs.
func ReadAnchors(ctx context.Context, cfg *configs.Config, replica string) ([]audit.Head, error) {
	if cfg.Store == configs.StoreLocal {
		return collect(cfg, replica, func(r names.Replica) ([]byte, error) { return local.ReadHeads(cfg.Local.Dir, r) })
	}
	log := slog.New(slog.DiscardHandler) // the error says it all
	session, err := newSession(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- session.Run(running) }()
	c := vaultkv.New(vaultkv.Config{Session: session, Mount: cfg.Vault.Mount, Logger: log})
	heads, err := collect(cfg, replica, func(r names.Replica) ([]byte, error) {
		doc, _, err := c.LoadHeads(ctx, r)
		return doc, err
	})
	stop()
	return heads, errors.Join(err, <-ended)
}

func collect(cfg *configs.Config, replica string, load func(names.Replica) ([]byte, error)) ([]audit.Head, error) {
	var heads []audit.Head
	for _, i := range cfg.Issuers {
		doc, err := load(names.Replica{Issuer: i.Name, Name: replica})
		if err != nil {
			return nil, err
		}
		if doc == nil {
			continue
		}
		a, err := audit.ParseAnchors(doc)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", i.Name, err)
		}
		for _, h := range a.Heads {
			if !slices.ContainsFunc(heads, h.Same) {
				heads = append(heads, h)
			}
		}
	}
	slices.SortStableFunc(heads, func(a, b audit.Head) int { return a.Time.Compare(b.Time) })
	return heads, nil
}
