package e2e

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestVaultTokenRevoked: somebody revokes the daemon's token. It logs in again
// and goes on.
func TestVaultTokenRevoked(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	d := s.start("web")
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	d.reason(10*time.Second, "ok", "", "")
	for range 3 {
		before := s.accessors()
		if len(before) != 1 {
			t.Fatalf("the daemon has %d tokens, want one", len(before))
		}
		_, version := s.manifest("main", 0)
		server.Write(t, "auth/token/revoke-accessor", map[string]any{"accessor": before[0]})
		revoked := time.Now()
		within(t, 10*time.Second, "another login, and writes with it", func() error {
			now := s.accessors()
			if len(now) != 1 || slices.Contains(before, now[0]) {
				return fmt.Errorf("tokens %v, revoked %v", now, before)
			}
			if _, v := s.manifest("main", 0); v <= version {
				return fmt.Errorf("nothing written since version %d", version)
			}
			return nil
		})
		t.Logf("logged in again and written %s after the revocation", time.Since(revoked).Round(10*time.Millisecond))
	}
	d.reason(10*time.Second, "ok", "", "")
	tr.rotation(60*time.Second, 5*time.Second)
}

// TestVaultShortTokens: tokens that are renewed every few seconds, and that no
// renewal carries beyond eight. Nobody notices.
func TestVaultShortTokens(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	server.Write(t, "auth/approle/role/"+s.role.Name, map[string]any{"token_ttl": "4s", "token_max_ttl": "8s"})
	d := s.start("web")
	d.reason(10*time.Second, "ok", "", "")
	startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	before, _ := s.manifest("main", 0)
	seen := map[string]bool{}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		for _, a := range s.accessors() {
			seen[a] = true
		}
		if _, h, err := d.health("/readyz"); err != nil || h.Status != "ok" {
			t.Errorf("/readyz: %+v, %v", h, err)
		}
	}
	if len(seen) < 3 {
		t.Errorf("%d tokens in 20 s, of which none may live longer than 8", len(seen))
	}
	if after, _ := s.manifest("main", 0); after.Generation <= before.Generation {
		t.Errorf("generation %d before and %d after", before.Generation, after.Generation)
	}
	if bad := d.metric(`keyturn_store_errors_total{`); bad != "" {
		t.Errorf("errors on the way: %s", bad)
	}
}

// TestVaultWrongSecretID: the daemon starts, says what is wrong and does not
// hammer Vault, which would lock the role out; with the right secret id in the
// file it goes on without a restart.
func TestVaultWrongSecretID(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	must(t, os.WriteFile(s.role.SecretIDFile, []byte("00000000-0000-0000-0000-000000000000\n"), 0o600))
	d := s.run()
	d.reason(15*time.Second, "unavailable", "store_denied", "are role_id_file and secret_id_file of this role")
	d.cannotSign(t)
	time.Sleep(15 * time.Second)
	if tries := strings.Count(d.out.String(), `"msg":"vault login failed"`); tries > 3 {
		t.Errorf("%d logins failed within 15 s; Vault locks a role out after five", tries)
	}
	if strings.Contains(d.out.String(), "00000000") {
		t.Error("the secret id shows in the log")
	}
	server.NewSecretID(t, s.role)
	mended := time.Now()
	d.canSign(40*time.Second, "web")
	t.Logf("signs %s after the secret id was mended", time.Since(mended).Round(100*time.Millisecond))
	d.reason(10*time.Second, "ok", "", "")
}

// TestVaultUnfitMount: the daemon ends, and says what to do.
func TestVaultUnfitMount(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	for mount, tc := range map[string]struct {
		version  int
		settings map[string]any
		want     []string
	}{
		"unfit-v1":   {1, nil, []string{"KV version 1", "vault kv enable-versioning unfit-v1"}},
		"unfit-cas":  {2, map[string]any{"cas_required": false}, []string{"vault write unfit-cas/config cas_required=true"}},
		"unfit-few":  {2, map[string]any{"cas_required": true, "max_versions": 2}, []string{"vault write unfit-few/config max_versions=0"}},
		"unfit-late": {2, map[string]any{"cas_required": true, "delete_version_after": "24h"}, []string{"vault write unfit-late/config delete_version_after=0s"}},
	} {
		server.EnableKV(t, mount, tc.version, tc.settings)
		s := newVaultSite(t, server, mount, "all")
		out, code := runToEnd(t, 20*time.Second, nil, "run", "--config", s.save())
		if code != 1 {
			t.Errorf("%s: exit code %d, want 1", mount, code)
		}
		wants(t, out, tc.want...)
		if last := strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]); !strings.Contains(last, tc.want[0]) {
			t.Errorf("%s: the last line does not say why: %s", mount, last)
		}
		if left := s.accessors(); len(left) != 0 {
			t.Errorf("%s: %d Vault tokens are left", mount, len(left))
		}
		if status, _ := s.get("LIST", mount+"/metadata/issuers"); tc.version == 2 && status != 404 {
			t.Errorf("%s: something was written before the refusal (status %d)", mount, status)
		}
	}
}

// TestVaultMountMissing: a mount that is not there may come; so the daemon
// waits, and says what to do.
func TestVaultMountMissing(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, "missing-mount", "all")
	d := s.run()
	d.reason(15*time.Second, "unavailable", "store_denied", "vault secrets enable -path=missing-mount -version=2 kv")
	server.EnableKV(t, "missing-mount", 2, map[string]any{"cas_required": true})
	d.canSign(30*time.Second, "web")
}

// TestVaultPolicyTooSmall: the roles of the file need more than the policy grants.
func TestVaultPolicyTooSmall(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "publisher")
	s.edit("roles: [publisher]", "roles: [rotator, signer, publisher]")
	d := s.run()
	d.reason(15*time.Second, "unavailable", "store_denied", "does the token's policy allow it?")
	d.cannotSign(t)
}
