package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Cluster is three Vault servers with Raft between them, on loopback. What it
// can do, in short (nodes are numbered from 0; those that return an error may be
// called from any goroutine, one at a time for each node):
//
//	StartCluster(t testing.TB) *Cluster      goes down with the test
//	LaunchCluster(dir string) (*Cluster, error), Close()   for TestMain
//	Front() *Server                          an address that outlives any node, for clients
//	                                         and for Mount, AppRole, Read, Write …
//	Nodes() int, URL(i int) string           how many, and node i's own address
//	Leader() (int, error)                    who leads now; waits while nobody does
//	StepDown() (int, error)                  the leader gives up; returns who that was
//	Kill(i int), Restart(i int) error        kill -9; back with its data, unsealed
//	Pause(i int), Resume(i int)              SIGSTOP, SIGCONT
//	Ready(ctx context.Context) error         waits until all three vote and one leads
//	Save() ([]byte, error), Restore(snapshot []byte) error    snapshot.go
type Cluster struct {
	nodes []*Server
	front *front
}

// size is how many nodes a cluster has: one may be lost.
const size = 3

// StartCluster runs a cluster of its own for a test. It takes some ten seconds.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	c, err := LaunchCluster(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// LaunchCluster runs a cluster that keeps its data in dir until Close. It
// returns when all nodes vote, so that any one of them may be lost.
func LaunchCluster(dir string) (*Cluster, error) {
	bin, err := Bin()
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	for i := range size {
		id := fmt.Sprintf("node%d", i)
		node := &Server{bin: bin, id: id, dir: filepath.Join(dir, id), transport: &http.Transport{DisableKeepAlives: true}}
		c.nodes = append(c.nodes, node)
		if err := os.Mkdir(node.dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := c.boot(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) boot(ctx context.Context) error {
	if err := c.each(c.nodes, (*Server).placeAndSpawn); err != nil {
		return err
	}
	first := c.nodes[0]
	if err := errors.Join(first.initialize(ctx), first.unsealed(ctx)); err != nil {
		return err
	}
	// A node that has just joined is no voter until it has been well for a while.
	if _, err := first.client.Logical().WriteWithContext(ctx, "sys/storage/raft/autopilot/configuration",
		map[string]any{"server_stabilization_time": "500ms"}); err != nil {
		return fmt.Errorf("autopilot: %w", err)
	}
	err := c.each(c.nodes[1:], func(n *Server) error {
		if _, err := n.client.Sys().RaftJoinWithContext(ctx, &vaultapi.RaftJoinRequest{LeaderAPIAddr: first.URL()}); err != nil {
			return fmt.Errorf("%s joins: %w", n.id, err)
		}
		n.root, n.unseal = first.root, first.unseal
		n.client.SetToken(n.root)
		return n.joined(ctx)
	})
	if err != nil {
		return err
	}
	if c.front, err = newFront(c.nodes); err != nil {
		return err
	}
	return c.Ready(ctx)
}

// quick has the leader look every second whether a new node may vote, not
// every ten.
var quick = []string{`autopilot_reconcile_interval = "1s"`, `autopilot_update_interval = "1s"`}

// placeAndSpawn starts a node that knows nothing yet.
func (s *Server) placeAndSpawn() error {
	if err := s.place(quick...); err != nil {
		return err
	}
	return s.spawn()
}

// each does something for nodes at the same time.
func (c *Cluster) each(nodes []*Server, do func(*Server) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// joined unseals a node and waits until it follows or leads. The key is given
// once: a second one while the first is at work leaves a node that never steps
// down again.
func (s *Server) joined(ctx context.Context) error {
	if _, err := s.client.Sys().UnsealWithContext(ctx, s.unseal); err != nil {
		return fmt.Errorf("%s: unseal: %w", s.id, err)
	}
	for {
		health, err := s.client.Sys().HealthWithContext(ctx)
		if err == nil && health.Initialized && !health.Sealed {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not join: %w", s.id, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close ends all nodes for good.
func (c *Cluster) Close() {
	if c.front != nil {
		c.front.close()
	}
	_ = c.each(c.nodes, func(n *Server) error { n.Close(); return nil }) // Close cannot go wrong
}

// Front is a server to talk to: its URL leads to one of the nodes that listen,
// as a load balancer before a cluster does, one after the other for new
// connections. It has no process, so that Kill, Pause and Resume do nothing.
func (c *Cluster) Front() *Server { return c.front.server }

// Nodes is how many there are.
func (c *Cluster) Nodes() int { return len(c.nodes) }

// URL is node i's own address.
func (c *Cluster) URL(i int) string { return c.nodes[i].URL() }

// Kill ends node i at once, and returns when it has ended.
func (c *Cluster) Kill(i int) { c.nodes[i].Kill() }

// Pause stops node i with SIGSTOP: connections stay open, and nothing answers.
func (c *Cluster) Pause(i int) { c.nodes[i].Pause() }

// Resume lets node i go on.
func (c *Cluster) Resume(i int) { c.nodes[i].Resume() }

// Restart starts node i again after Kill, with the data that it had, and
// returns when it is unsealed. It votes at once, for it was a voter before.
func (c *Cluster) Restart(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.nodes[i].spawn(); err != nil {
		return err
	}
	return c.nodes[i].joined(ctx)
}

// Leader is who leads now. It waits for half a minute while nobody does.
func (c *Cluster) Leader() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.leader(ctx)
}

func (c *Cluster) leader(ctx context.Context) (int, error) {
	for {
		for i, n := range c.nodes {
			if n.leads(ctx) {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("nobody leads the cluster: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// leads asks the node itself; one that is stopped or dead says nothing soon.
func (s *Server) leads(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	health, err := s.client.Sys().HealthWithContext(ctx)
	return err == nil && health.Initialized && !health.Sealed && !health.Standby
}

// StepDown makes the leader give up, and returns who that was when it no
// longer leads. Another one leads within some seconds: Leader waits for it. Who
// has given up does not lead again for ten.
func (c *Cluster) StepDown() (int, error) {
	i, err := c.Leader()
	if err != nil {
		return 0, err
	}
	ctx, cancel := setupContext()
	defer cancel()
	if err := c.nodes[i].client.Sys().StepDownWithContext(ctx); err != nil {
		return i, fmt.Errorf("step down: %w", err)
	}
	for c.nodes[i].leads(ctx) {
		select {
		case <-ctx.Done():
			return i, fmt.Errorf("%s does not step down: %w", c.nodes[i].id, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return i, nil
}

// Ready waits until every node is there and votes, and one of them leads.
func (c *Cluster) Ready(ctx context.Context) error {
	for {
		err := c.votes(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster is not whole: %w", errors.Join(ctx.Err(), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) votes(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	i, err := c.leader(ctx)
	if err != nil {
		return err
	}
	state, err := c.nodes[i].client.Sys().RaftAutopilotStateWithContext(ctx)
	if err != nil {
		return fmt.Errorf("autopilot state: %w", err)
	}
	return wholeState(state, len(c.nodes))
}

func wholeState(state *vaultapi.AutopilotState, want int) error {
	if state == nil {
		return errors.New("no autopilot state yet")
	}
	well := 0
	for _, n := range state.Servers {
		if n.Healthy {
			well++
		}
	}
	if len(state.Voters) != want || well != want {
		return fmt.Errorf("%d voters and %d healthy nodes of %d", len(state.Voters), well, want)
	}
	return nil
}
