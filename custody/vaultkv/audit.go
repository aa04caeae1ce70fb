package vaultkv

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/keyring"
)

const (
	auditName = "audit"
	// headsField holds the document of package audit, as one string.
	headsField = "heads"
)

// LoadHeads reads a replica's audit heads with KV's version of them. Where
// there are none, or an operator has deleted them, the document is nil. Errors
// are keyring's: ErrUnavailable, ErrDenied; ErrCorrupt with the version.
func (c *Custody) LoadHeads(ctx context.Context, r custody.Replica) ([]byte, int, error) {
	doc, version, err := c.loadHeads(ctx, r)
	if err != nil {
		return nil, version, fmt.Errorf("load audit heads of replica %q of %q: %w", r.Name, r.Issuer, err)
	}
	return doc, version, nil
}

func (c *Custody) loadHeads(ctx context.Context, r custody.Replica) ([]byte, int, error) {
	if err := r.Check(); err != nil {
		return nil, 0, err
	}
	path := c.path("data", r.Issuer, auditName, r.Name)
	e, err := c.read(ctx, path)
	if err != nil || e.fields == nil {
		return nil, e.version, err
	}
	doc, err := e.text(headsField)
	if err != nil {
		return nil, e.version, fmt.Errorf("%w: %s: %w", keyring.ErrCorrupt, path, err)
	}
	return []byte(doc), e.version, nil
}

// SaveHeads replaces a replica's audit heads if their version is still the one
// given, 0 for none; ErrConflict if it is not. A reply that was lost is found
// out by reading back. After ErrUnavailable they may be stored, now or a little
// later.
func (c *Custody) SaveHeads(ctx context.Context, r custody.Replica, doc []byte, version int) error {
	if err := c.saveHeads(ctx, r, doc, version); err != nil {
		return fmt.Errorf("save audit heads of replica %q of %q: %w", r.Name, r.Issuer, err)
	}
	return nil
}

func (c *Custody) saveHeads(ctx context.Context, r custody.Replica, doc []byte, version int) error {
	if err := r.Check(); err != nil {
		return err
	}
	_, doubt, err := c.put(ctx, c.path("data", r.Issuer, auditName, r.Name), map[string]string{headsField: string(doc)}, version)
	if doubt && err != nil {
		if stored, _, readErr := c.loadHeads(ctx, r); readErr == nil && string(stored) == string(doc) {
			return nil
		}
	}
	if errors.Is(err, errRefused) {
		return keyring.ErrConflict
	}
	return err
}
