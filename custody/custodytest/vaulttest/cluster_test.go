package vaulttest

import (
	"context"
	"fmt"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCluster: what is written through the front is there after a step-down,
// after a kill of the leader and after its return; a snapshot brings back what
// was destroyed since, and takes away what came after.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t)
	front := c.Front()
	mount := front.Mount(t)
	put(t, c, mount, "kept", 0)

	first, err := c.StepDown()
	must(t, err)
	second, err := c.Leader()
	must(t, err)
	put(t, c, mount, "kept", 1)
	t.Logf("node %d led, then node %d", first, second)

	c.Kill(second)
	third, err := c.Leader()
	must(t, err)
	if third == second {
		t.Fatalf("node %d leads, and it is dead", third)
	}
	put(t, c, mount, "kept", 2)
	must(t, c.Restart(second))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, c.Ready(ctx))

	snapshot, err := c.Save()
	must(t, err)
	put(t, c, mount, "kept", 3)
	put(t, c, mount, "later", 0)
	front.Write(t, mount+"/destroy/kept", map[string]any{"versions": []int{3}})
	must(t, c.Restore(snapshot))
	for i := range c.Nodes() {
		got, err := read(c.nodes[i], mount+"/data/kept")
		if err != nil || got != "kept 2" {
			t.Errorf("node %d, kept: %q, %v", i, got, err)
		}
		if got, err := read(c.nodes[i], mount+"/data/later"); err == nil {
			t.Errorf("node %d, later: %q", i, got)
		}
	}
}

// TestSnapshot is the same for a server alone; a token that was revoked works
// again.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := Start(t)
	mount := s.Mount(t)
	token := s.Token(t, TokenOptions{Policies: []string{s.Policy(t, `path "`+mount+`/*" { capabilities = ["read"] }`)}})
	s.Write(t, mount+"/data/kept", map[string]any{"data": map[string]any{"text": "old"}, "options": map[string]any{"cas": 0}})
	snapshot, err := s.Save()
	must(t, err)
	s.Write(t, mount+"/data/kept", map[string]any{"data": map[string]any{"text": "new"}, "options": map[string]any{"cas": 1}})
	s.Revoke(t, token)
	must(t, s.Restore(snapshot))
	if got, err := read(s, mount+"/data/kept"); err != nil || got != "old" {
		t.Errorf("kept: %q, %v", got, err)
	}
	holder, err := s.newClient(token)
	must(t, err)
	if secret, err := holder.Logical().Read(mount + "/data/kept"); err != nil || secret == nil {
		t.Errorf("the revoked token after the restore: %v", err)
	}
}

// put writes once, whoever leads; what one node refuses because it knows no
// leader, and what was lost on the way, comes again with the same cas.
func put(t *testing.T, c *Cluster, mount, name string, cas int) {
	t.Helper()
	data := map[string]any{"data": map[string]any{"text": fmt.Sprint(name, " ", cas)}, "options": map[string]any{"cas": cas}}
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, err := c.Front().Client().Logical().Write(mount+"/data/"+name, data)
		if got, readErr := read(c.Front(), mount+"/data/"+name); readErr == nil && got == fmt.Sprint(name, " ", cas) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("write %s: %v", name, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func read(s *Server, path string) (string, error) {
	secret, err := s.client.Logical().Read(path)
	if err != nil {
		return "", err
	}
	if secret == nil || secret.Data["data"] == nil {
		return "", &vaultapi.ResponseError{StatusCode: 404}
	}
	return secret.Data["data"].(map[string]any)["text"].(string), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
