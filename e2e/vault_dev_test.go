package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/api"
)

// TestVaultDev is the main job on a real Vault: run it, paste what it prints,
// watch a rotation; then a key's end, and a kill -9.
func TestVaultDev(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	dir, public := newSite(t).path("dev"), freeAddr(t)
	env := []string{"VAULT_ADDR=" + server.URL(), "VAULT_TOKEN=" + server.RootToken(), "KEYTURN_LOG_LEVEL=debug"}
	began := time.Now()
	d := startDev(t, dir, public, env, "--vault")
	first := d.mustToken("dev")
	t.Logf("up and signing after %s", time.Since(began).Round(time.Millisecond))
	root := newSecrets(&vaultSite{site: &site{t: t, dir: dir}, vault: server, mount: "keyturn"}, "dev")
	root.collect()
	pasteWhatItPrints(t, d)

	tr := startTraffic(&traffic{
		t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"dev", d, ask("dev")}}, cache: 5 * time.Second,
	})
	within(t, 4*time.Minute-time.Since(began), "rotation", func() error {
		root.collect()
		if tr.signer("dev") == first.Kid {
			return fmt.Errorf("%s still signs", first.Kid)
		}
		return nil
	})
	t.Logf("a rotation after %s", time.Since(began).Round(time.Second))
	oneKeyEnds(t, d, tr, root, first.Kid)

	said, signing := d.answers(), tr.signer("dev")
	tr.without(func() {
		d.kill()
		again := startDev(t, dir, public, env, "--vault")
		tr.callers[0].daemon = again
		if after := again.mustToken("dev"); after.Kid != signing {
			t.Errorf("kid %s signs after kill -9, %s did before", after.Kid, signing)
		}
		maps.Copy(said, renamed(again.answers()))
		d = again
	})
	time.Sleep(5 * time.Second) // tokens and copies from before the kill
	root.collect()
	tr.end()
	d.stop()
	said["output of the second"] = []byte(d.out.String())
	root.nowhere(said, dir)
}

// oneKeyEnds follows the first key from the rotation to the end of its private
// half: then nothing but that of the active and of the standby key is in Vault.
func oneKeyEnds(t *testing.T, d *daemon, tr *traffic, root *secrets, first string) {
	t.Helper()
	turned, signing := time.Now(), tr.signer("dev")
	var standby api.Key
	within(t, 10*time.Second, "the next standby key, published", func() (err error) {
		var found bool
		if standby, found = d.key("dev", "standby"); !found || len(standby.WaitingFor) > 0 {
			err = fmt.Errorf("standby %+v", standby)
		}
		return err
	})
	root.collect()
	root.matches(fetchSet(t, tr, d.jwksURL()), first, signing, standby.Kid)
	root.end(90*time.Second, first)
	t.Logf("nothing is left of the private half %s after the rotation", time.Since(turned).Round(time.Second))
	if closed, _ := d.key("dev", "closed"); closed.Kid != first {
		t.Errorf("kid %q is closed, want %s: its tokens live on", closed.Kid, first)
	}
	root.matches(fetchSet(t, tr, d.jwksURL()), signing, standby.Kid)
	kids := root.kids()
	if len(kids) != 2 || !slices.Contains(kids, signing) || !slices.Contains(kids, standby.Kid) {
		t.Errorf("halves %v are in Vault, want those of %s and %s", kids, signing, standby.Kid)
	}
}

func renamed(docs map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, doc := range docs {
		out["of the second: "+name] = doc
	}
	return out
}

func fetchSet(t *testing.T, tr *traffic, url string) jose.JSONWebKeySet {
	t.Helper()
	c, err := tr.fetch(url)
	must(t, err)
	for _, k := range c.keys.Keys {
		if !k.IsPublic() {
			t.Errorf("a private key is published: kid %s", k.KeyID)
		}
	}
	return c.keys
}

// TestVaultDevWithoutVault: what is missing is said, and nothing is left running.
func TestVaultDevWithoutVault(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	for _, tc := range []struct {
		name string
		env  []string
		code int
		want []string
	}{
		{"nothing", nil, 1, []string{"set VAULT_ADDR and VAULT_TOKEN"}},
		{"no token", []string{"VAULT_ADDR=" + server.URL()}, 1, []string{"VAULT_TOKEN"}},
		{"a token of another Vault", []string{"VAULT_ADDR=" + server.URL(), "VAULT_TOKEN=hvs.CAESnothing"}, 1, []string{"the token has ended, was revoked, or is not one of this Vault"}},
		{"nobody there", []string{"VAULT_ADDR=http://" + freeAddr(t), "VAULT_TOKEN=x"}, 2, []string{"connection refused"}},
	} {
		out, code := runToEnd(t, 40*time.Second, tc.env, "dev", "--vault", "--dir", newSite(t).path("dev"), "--public-addr", freeAddr(t), "--status-addr", freeAddr(t))
		if code != tc.code {
			t.Errorf("%s: exit code %d, want %d", tc.name, code, tc.code)
		}
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", tc.name, want, out)
			}
		}
		if strings.Contains(out, "hvs.") {
			t.Errorf("%s: the token is printed:\n%s", tc.name, out)
		}
	}
}
