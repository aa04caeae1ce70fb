package e2e

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

func (c *chaos) cutLink(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.link.busy.TryLock() {
		return false
	}
	defer r.link.busy.Unlock()
	c.ledger.note("replica %d: cut off from Vault for %s", r.index, tr.hold)
	s := c.weather.begin(noVault, r.index)
	defer s.over()
	r.link.cut()
	c.pause(tr.hold)
	if err := r.link.open(); err != nil {
		c.ledger.fail("harness", "open the link of replica %d: %v", r.index, err)
	}
	c.ledger.note("replica %d: the link is there again", r.index)
	return true
}

func (c *chaos) silenceLink(tr trouble) bool {
	return c.poison(tr, "nothing comes back from Vault", (*link).silence)
}

func (c *chaos) delayLink(tr trouble) bool {
	by := 100*time.Millisecond + time.Duration(tr.dice%1200)*time.Millisecond
	return c.poison(tr, "answers of Vault come late by "+by.String(), func(l *link) error { return l.delay(by) })
}

func (c *chaos) poison(tr trouble, what string, do func(*link) error) bool {
	r := c.replicas[tr.replica]
	if !r.link.busy.TryLock() {
		return false
	}
	defer r.link.busy.Unlock()
	c.ledger.note("replica %d: %s, for %s", r.index, what, tr.hold)
	s := c.weather.begin(noVault, r.index)
	defer s.over()
	if err := do(r.link); err != nil {
		c.ledger.fail("harness", "%s: %v", what, err)
		return true
	}
	c.pause(tr.hold)
	r.link.heal()
	c.ledger.note("replica %d: the link is well again", r.index)
	return true
}

// dropReplies: writes are carried out, and their replies are lost, late, or
// say that they failed.
func (c *chaos) dropReplies(tr trouble) bool {
	r := c.replicas[tr.replica]
	if !r.link.busy.TryLock() {
		return false
	}
	defer r.link.busy.Unlock()
	faults := []vaulttest.Fault{vaulttest.DropReply, vaulttest.Answer500, vaulttest.DropRequest, vaulttest.DropReply}
	fault := faults[tr.dice%4]
	c.ledger.note("replica %d: replies to its writes are lost (%d) for %s", r.index, fault, tr.hold)
	s := c.weather.begin(noVault, r.index)
	defer s.over()
	r.proxy.Decide(func(req *http.Request) vaulttest.Fault {
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/data/issuers/") {
			c.ledger.count("writes whose reply was lost")
			return fault
		}
		return vaulttest.Pass
	})
	c.pause(tr.hold)
	r.proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Pass })
	return true
}

// revokeToken ends all tokens of a replica at once.
func (c *chaos) revokeToken(tr trouble) bool {
	r := c.replicas[tr.replica]
	client := c.cluster.Front().Client()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	list, err := client.Logical().ListWithContext(ctx, "auth/token/accessors")
	if err != nil || list == nil {
		return false // Vault is away
	}
	accessors, _ := list.Data["keys"].([]any)
	s := c.weather.begin(noVault, r.index)
	defer s.over()
	revoked := 0
	for _, a := range accessors {
		info, err := client.Logical().WriteWithContext(ctx, "auth/token/lookup-accessor", map[string]any{"accessor": a})
		if err != nil || info == nil {
			continue // it ended meanwhile
		}
		if meta, _ := info.Data["meta"].(map[string]any); meta["role_name"] == r.role.Name {
			if _, err := client.Logical().WriteWithContext(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": a}); err == nil {
				revoked++
			}
		}
	}
	c.ledger.note("replica %d: %d tokens revoked", r.index, revoked)
	return revoked > 0
}

// onVault does something to Vault itself. It excuses something until every node
// answers again, and is over when all nodes vote, so that any of them may be
// lost again.
func (c *chaos) onVault(what string, do func() error) bool {
	if !c.vault.TryLock() {
		return false
	}
	defer c.vault.Unlock()
	c.ledger.note("%s", what)
	s := c.weather.begin(noVault, everywhere)
	defer s.over()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	err := do()
	for err == nil && !c.answers(ctx) {
		if err = ctx.Err(); err == nil {
			c.pause(50 * time.Millisecond)
		}
	}
	s.over()
	c.ledger.note("Vault answers again after %s", time.Since(began).Round(time.Millisecond))
	if err == nil {
		err = c.cluster.Ready(ctx)
	}
	if err != nil {
		c.ledger.fail("harness", "%s: %v", what, err)
	}
	return true
}

// answers reports that every node reads and writes.
func (c *chaos) answers(ctx context.Context) bool {
	for i := range c.cluster.Nodes() {
		if status, _, err := c.askVault(ctx, http.MethodGet, c.cluster.URL(i), c.mount+"/config"); err != nil || status != http.StatusOK {
			return false
		}
	}
	return true
}

// askVault asks a node as root, and returns the status and the body as they come.
func (c *chaos) askVault(ctx context.Context, method, node, path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, node+"/v1/"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("X-Vault-Token", c.cluster.Front().RootToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func (c *chaos) stepDown(trouble) bool {
	return c.onVault("Vault's leader steps down", func() error {
		_, err := c.cluster.StepDown()
		return err
	})
}

func (c *chaos) killNode(tr trouble) bool {
	return c.onVault("Vault's node is killed", func() error {
		node := tr.node
		if tr.dice%2 == 0 {
			leader, err := c.cluster.Leader()
			if err != nil {
				return err
			}
			node = leader
		}
		c.cluster.Kill(node)
		c.pause(tr.hold)
		return c.cluster.Restart(node)
	})
}

func (c *chaos) sealLeader(tr trouble) bool {
	return c.onVault("Vault's leader is sealed", func() error {
		node, err := c.cluster.Leader()
		if err != nil {
			return err
		}
		if err := c.cluster.Seal(node); err != nil {
			return err
		}
		c.pause(tr.hold)
		return c.cluster.Unseal(node)
	})
}

func (c *chaos) pauseVault(tr trouble) bool {
	return c.onVault("Vault hangs for "+tr.hold.String(), func() error {
		for i := range c.cluster.Nodes() {
			c.cluster.Pause(i)
		}
		c.pause(tr.hold)
		for i := range c.cluster.Nodes() {
			c.cluster.Resume(i)
		}
		return nil
	})
}
