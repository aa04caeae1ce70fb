package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Save takes a snapshot of everything that the server holds, as an operator's
// backup does.
func (s *Server) Save() ([]byte, error) {
	ctx, cancel := setupContext()
	defer cancel()
	var out bytes.Buffer
	if err := s.client.Sys().RaftSnapshotWithContext(ctx, &out); err != nil {
		return nil, fmt.Errorf("save a snapshot: %w", err)
	}
	return out.Bytes(), nil
}

// Restore puts a snapshot of the same server, or of its cluster, in the place of
// all that it holds: what was destroyed since is there again, and so are tokens
// that were revoked. It returns when the server acts on it.
func (s *Server) Restore(snapshot []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.force(ctx, snapshot); err != nil {
		return err
	}
	return errors.Join(s.active(ctx), s.forgets(ctx))
}

// marker is a policy that no snapshot holds: the server reads what was restored
// when it is gone.
const marker = "written-before-a-restore"

func (s *Server) force(ctx context.Context, snapshot []byte) error {
	sys := s.client.Sys()
	if err := sys.PutPolicyWithContext(ctx, marker, `path "nothing" { capabilities = ["deny"] }`); err != nil {
		return fmt.Errorf("before the restore: %w", err)
	}
	if err := sys.RaftSnapshotRestoreWithContext(ctx, bytes.NewReader(snapshot), true); err != nil {
		return fmt.Errorf("restore a snapshot: %w", err)
	}
	return nil
}

func (s *Server) forgets(ctx context.Context) error {
	for {
		text, err := s.client.Sys().GetPolicyWithContext(ctx, marker)
		if err == nil && text == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("what was there before the restore does not go: %w", errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Save is Server.Save, at the leader.
func (c *Cluster) Save() ([]byte, error) {
	i, err := c.Leader()
	if err != nil {
		return nil, err
	}
	return c.nodes[i].Save()
}

// Restore is Server.Restore, at the leader. It returns when every node has it.
func (c *Cluster) Restore(snapshot []byte) error {
	i, err := c.Leader()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.nodes[i].force(ctx, snapshot); err != nil {
		return err
	}
	if err := c.Ready(ctx); err != nil {
		return err
	}
	return c.each(c.nodes, func(n *Server) error { return n.forgets(ctx) })
}
