package vaultkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/keyring"
)

const (
	manifestName  = "manifest"
	manifestField = "manifest"
	// maxManifest keeps clear of the 1 MiB that a storage entry may have; more
	// is answered with a 500, as if it were an outage.
	maxManifest = 900 << 10
)

// Load reads an issuer's manifest with KV's version of it. Errors are
// keyring's: ErrNoManifest where nothing was ever there; ErrCorrupt, with the
// version by which it can be replaced, also of one that was deleted; ErrSchema,
// with the snapshot where it could be read; ErrUnavailable; ErrDenied.
func (c *Custody) Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	s, version, err := c.load(ctx, issuer)
	if err != nil {
		return s, version, fmt.Errorf("load manifest of %q: %w", issuer, err)
	}
	return s, version, nil
}

func (c *Custody) load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error) {
	if err := custody.CheckIssuer(issuer); err != nil {
		return nil, 0, err
	}
	path := c.path("data", issuer, manifestName)
	e, err := c.read(ctx, path)
	switch {
	case err != nil:
		return nil, 0, err
	case e.version == 0:
		return nil, 0, keyring.ErrNoManifest
	case e.fields == nil:
		// Not as if there had never been one: that would be born anew.
		return nil, e.version, fmt.Errorf("%w: version %d at %s was deleted; undelete it or restore an older version (vault kv undelete, vault kv rollback)",
			keyring.ErrCorrupt, e.version, path)
	}
	doc, err := e.text(manifestField)
	if err != nil {
		return nil, e.version, fmt.Errorf("%w: %s: %w", keyring.ErrCorrupt, path, err)
	}
	s, err := keyring.Decode([]byte(doc))
	if s != nil && s.Config.Name != issuer {
		s, err = nil, fmt.Errorf("%w: it is the manifest of issuer %q", keyring.ErrCorrupt, s.Config.Name)
	}
	return s, e.version, err
}

// Save replaces an issuer's manifest if its version is still the one given, 0
// for none, and returns the new version; ErrConflict if it is not. A reply that
// was lost is found out by reading write_id back, so that nil means stored and
// ErrConflict that somebody else's is. After ErrUnavailable it may be stored,
// now or a little later: plan again from what Load shows then.
func (c *Custody) Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	v, err := c.save(ctx, issuer, next, version)
	if err != nil {
		return 0, fmt.Errorf("save manifest of %q: %w", issuer, err)
	}
	return v, nil
}

func (c *Custody) save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	if err := custody.CheckIssuer(issuer); err != nil {
		return 0, err
	}
	doc, err := keyring.Encode(next)
	switch {
	case err != nil:
		return 0, err
	case next.Config.Name != issuer || next.WriteID == "":
		return 0, fmt.Errorf("the manifest is of issuer %q, write_id %q", next.Config.Name, next.WriteID)
	case len(doc) > maxManifest:
		return 0, fmt.Errorf("the manifest has %d bytes; Vault takes %d", len(doc), maxManifest)
	}
	written, doubt, err := c.put(ctx, c.path("data", issuer, manifestName), map[string]string{manifestField: string(doc)}, version)
	switch {
	case err == nil:
		return written, nil
	case doubt:
		return c.findOut(ctx, issuer, next.WriteID, err)
	case errors.Is(err, errRefused):
		return 0, keyring.ErrConflict
	}
	return 0, err
}

// findOut reads back whether a write has happened whose reply was lost. err is
// what it ended with.
func (c *Custody) findOut(ctx context.Context, issuer, writeID string, err error) (int, error) {
	ctx, cancel := settle(ctx)
	defer cancel()
	e, readErr := c.read(ctx, c.path("data", issuer, manifestName))
	if readErr != nil {
		return 0, fmt.Errorf("whether it was stored is unknown: %w", errors.Join(err, readErr))
	}
	var stored struct {
		WriteID string `json:"write_id"`
	}
	if doc, textErr := e.text(manifestField); textErr == nil && json.Unmarshal([]byte(doc), &stored) == nil && stored.WriteID == writeID {
		return e.version, nil
	}
	if errors.Is(err, errRefused) {
		// Definite: another version stands there, and it is not ours. (If ours
		// was stored and replaced since, the one who did it built on ours.)
		return 0, keyring.ErrConflict
	}
	return 0, fmt.Errorf("it is not stored yet and may be later: %w", err)
}
