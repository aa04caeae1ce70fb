package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// TestCrashAfterActivation: the process dies right after the write that makes
// the standby active, before anybody has heard of it. The next one signs with
// the new key at once, and the old one stays published for as long as its
// tokens live; its half ends in its time.
func TestCrashAfterActivation(t *testing.T) {
	t.Parallel()
	m, root := onVault(t)
	d := m.runUntil("saved.key_activated:2") // the first activation is the founding
	d.canSign(30*time.Second, "web")
	m.follow()
	old, next := m.settles(d, 20*time.Second)
	d.crashes(45 * time.Second)

	r := m.stored()
	if k := r.find(next); k.Activated.IsZero() || !k.Retired.IsZero() {
		t.Errorf("the manifest says of the new key: %+v", k)
	}
	if k := r.find(old); k.Retired.IsZero() || !k.Closed.IsZero() {
		t.Errorf("the manifest says of the old key: %+v", k)
	}
	if kids := m.published(); !slices.Contains(kids, old) || !slices.Contains(kids, next) {
		t.Errorf("published: %v, want %s and %s", kids, old, next)
	}

	d = m.start("web")
	// While the new half is being fetched the old one may sign, within its lease.
	within(t, 5*time.Second, "the new key's signature", func() error {
		if tok := d.mustToken("web"); tok.Kid != next {
			return fmt.Errorf("%s signs after the restart, want %s", tok.Kid, next)
		}
		return nil
	})
	if kids := m.published(); !slices.Contains(kids, old) || !slices.Contains(kids, next) {
		t.Errorf("published after the restart: %v, want %s and %s", kids, old, next)
	}
	root.end(30*time.Second, old)
	within(t, 20*time.Second, "the end of the old key's publication", func() error {
		if kids := m.published(); slices.Contains(kids, old) {
			return fmt.Errorf("published: %v", kids)
		}
		return nil
	})
	if k := m.stored().find(next); k.Activated.IsZero() || !k.Activated.Equal(r.find(next).Activated) {
		t.Errorf("the new key was activated again, or is no more: %+v", k)
	}
}

// TestCrashInDestruction: the process dies, twice, between the destruction of
// a half and the deletion of its metadata. The next one begins again, until
// root reads 404 of both.
func TestCrashInDestruction(t *testing.T) {
	t.Parallel()
	m, root := onVault(t)
	d := m.runUntil("destroy.destroyed")
	d.canSign(30*time.Second, "web")
	m.follow()
	old, _ := m.settles(d, 20*time.Second)
	d.crashes(60 * time.Second)
	m.halfDestroyed(root, old)
	d = m.runUntil("destroy.destroyed")
	d.crashes(30 * time.Second)
	m.halfDestroyed(root, old)

	d = m.start("web")
	root.end(20*time.Second, old)
	within(t, 10*time.Second, "its end in the manifest", func() error {
		if k := m.stored().find(old); k.Destroyed.IsZero() {
			return fmt.Errorf("%+v", k)
		}
		return nil
	})
	m.settles(d, 20*time.Second)
}

// halfDestroyed wants a half of which the bytes are gone and the metadata is
// there, which the manifest shows as closed and not as destroyed.
func (m *mortal) halfDestroyed(root *secrets, kid string) {
	m.t.Helper()
	if status, _ := root.get("GET", root.path("data", kid)); status != http.StatusNotFound {
		m.t.Errorf("data of %s: status %d, want 404", kid, status)
	}
	if status, _ := root.get("GET", root.path("metadata", kid)); status != http.StatusOK {
		m.t.Errorf("metadata of %s: status %d, want 200", kid, status)
	}
	if k := m.stored().find(kid); k.Closed.IsZero() || !k.Destroyed.IsZero() {
		m.t.Errorf("the manifest says of it: %+v", k)
	}
}

// TestCrashBeforePublishing: of three replicas the one that stored a new
// standby dies before it publishes it. The others publish it, without making
// another one.
func TestCrashBeforePublishing(t *testing.T) {
	t.Parallel()
	crashBinary(t)
	server := sharedVault(t)
	mount := server.Mount(t)
	var sites []*mortal
	var root *secrets
	var daemons []*daemon
	// Each dies at the first standby that it stores from the rotation on: the
	// first replica makes two keys before that.
	for i, at := range []string{"saved.key_created:3", "saved.key_created", "saved.key_created"} {
		v := newVaultSite(t, server, mount, "all")
		if i > 0 { // one issuer, whoever serves it
			v.edit("url: http://"+v.public, "url: http://"+sites[0].public)
		}
		m, secrets := mortalVault(v, 28*time.Second)
		sites, root = append(sites, m), secrets
		d := m.runUntil(at)
		d.canSign(30*time.Second, "web")
		sites[0].settles(d, 20*time.Second)
		daemons = append(daemons, d)
	}
	tr := &traffic{t: t, mortal: true, cache: vaultCache}
	for i, m := range sites {
		tr.endpoints = append(tr.endpoints, serveFile(t, m.file))
		tr.callers = append(tr.callers, caller{fmt.Sprint("replica ", i), daemons[i], ask("web")})
	}
	startTraffic(tr)
	before := sites[0].stored()

	dead := firstToDie(t, daemons, 60*time.Second)
	daemons[dead].crashes(time.Second)
	r := sites[0].stored()
	fresh := slices.DeleteFunc(r.alive(), func(kid string) bool { return before.find(kid).JWK.Kid != "" })
	if len(fresh) != 1 {
		t.Fatalf("new keys in the manifest: %v, want one", fresh)
	}
	if kids := sites[dead].published(); slices.Contains(kids, fresh[0]) {
		t.Errorf("replica %d published %s before it died", dead, fresh[0])
	}
	for i, m := range sites {
		if i == dead {
			continue
		}
		within(t, 10*time.Second, fmt.Sprintf("replica %d publishes the new key", i), func() error {
			k, found := daemons[i].key("web", "standby")
			if kids := m.published(); !slices.Contains(kids, fresh[0]) || !found || k.Kid != fresh[0] || len(k.WaitingFor) > 0 {
				return fmt.Errorf("published %v, standby %+v", kids, k)
			}
			return nil
		})
	}
	daemons[dead] = sites[dead].start("web")
	agree(t, daemons, root)
	if kids := sites[dead].published(); !slices.Contains(kids, fresh[0]) {
		t.Errorf("replica %d publishes %v after its restart, want %s", dead, kids, fresh[0])
	}
	tr.end()
}

// firstToDie waits until one of the daemons is no more, and wants the others
// alive.
func firstToDie(t *testing.T, daemons []*daemon, limit time.Duration) int {
	t.Helper()
	dead := -1
	within(t, limit, "a replica at its crash point", func() error {
		for i, d := range daemons {
			select {
			case err := <-d.exited:
				d.exited <- err
				dead = i
				return nil
			default:
			}
		}
		return errors.New("all are alive")
	})
	return dead
}
