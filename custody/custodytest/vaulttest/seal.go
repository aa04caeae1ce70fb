package vaulttest

import (
	"context"
	"fmt"
	"time"
)

// Seal makes node i, which has to lead, refuse everything until Unseal; another
// one leads then.
func (c *Cluster) Seal(i int) error {
	ctx, cancel := setupContext()
	defer cancel()
	if err := c.nodes[i].client.Sys().SealWithContext(ctx); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// Unseal ends what Seal began and waits until the node follows or leads.
func (c *Cluster) Unseal(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.nodes[i].joined(ctx)
}
