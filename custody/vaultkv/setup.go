package vaultkv

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/custody/vaultsession"
)

// Setup makes the mount, KV v2 with check-and-set required, where nothing is
// mounted; a mount that is there is left as it is and checked. The token needs
// sys/mounts/MOUNT create and MOUNT/config update for it, which none of the
// daemon's own policies grants.
func (c *Custody) Setup(ctx context.Context) error {
	var refusal *vaultsession.Error
	err := c.checkVersion(ctx)
	if !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden {
		return c.Check(ctx)
	}
	_, err = c.session.Do(ctx, vaultsession.Request{Method: "PUT", Path: "sys/mounts/" + c.mount, Body: map[string]any{
		"type": "kv", "description": "keyturn: manifests and private halves", "options": map[string]string{"version": "2"},
	}})
	if err != nil {
		return fmt.Errorf("make the mount %q: %w", c.mount, err)
	}
	// Crash after this: a mount that Check refuses, saying how to mend it.
	for {
		_, err = c.session.Do(ctx, vaultsession.Request{Method: "PUT", Path: c.mount + "/config", Body: map[string]bool{"cas_required": true}})
		// For a moment after its birth a mount refuses everything.
		if !errors.As(err, &refusal) || !refusal.Says("Upgrading from non-versioned") {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("set up the mount %q: %w", c.mount, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err != nil {
		return fmt.Errorf("set up the mount %q: %w", c.mount, err)
	}
	return c.Check(ctx)
}
