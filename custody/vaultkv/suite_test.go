package vaultkv_test

import (
	"context"
	"crypto"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultkv"
	"github.com/keyturn/keyturn/keyring"
)

// The suite, on a real Vault, under the rotator's policy and nothing else.
func TestSuite(t *testing.T) {
	t.Parallel()
	custodytest.Run(t, func(t *testing.T, gen half.Generator) custodytest.Custody {
		return open(t, options{gen: gen})
	})
}

// Several processes: one winner for each manifest, one for each half.
func TestReplicas(t *testing.T) {
	t.Parallel()
	private, err := half.Random(keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	mount := vault.Mount(t)
	var replicas [3]*vaultkv.Custody
	for i := range replicas {
		replicas[i] = open(t, options{mount: mount, gen: func(keyring.Algorithm, int) (crypto.Signer, error) { return private, nil }})
	}
	race := func(lost error, try func(c *vaultkv.Custody) error) {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, 4*len(replicas))
		for i := range errs {
			wg.Go(func() { errs[i] = try(replicas[i%len(replicas)]) })
		}
		wg.Wait()
		winners := 0
		for _, err := range errs {
			if err == nil {
				winners++
			} else if !errors.Is(err, lost) {
				t.Errorf("a loser got %v, want %v", err, lost)
			}
		}
		if winners != 1 {
			t.Errorf("%d winners", winners)
		}
	}
	for generation := range uint64(4) {
		race(keyring.ErrConflict, func(c *vaultkv.Custody) error {
			_, err := c.Save(t.Context(), "main", custodytest.Sample("main", generation+1), int(generation))
			return err
		})
	}
	race(fs.ErrExist, func(c *vaultkv.Custody) error {
		_, _, err := c.Create(t.Context(), "main", keyring.ES256, 0)
		return err
	})
}

// Each role can do its work and nothing else.
func TestRoles(t *testing.T) {
	t.Parallel()
	mount := vault.Mount(t)
	rotator := open(t, options{mount: mount})
	k := create(t, rotator)
	s := custodytest.Sample("main", 1, k)
	version := save(t, rotator, s, 0)
	for role, may := range map[string][]string{
		vaultkv.RoleRotator:   {"load", "save", "create", "list", "signer", "destroy", "check", "anchor"},
		vaultkv.RoleSigner:    {"load", "signer", "check", "anchor"},
		vaultkv.RolePublisher: {"load", "check"},
	} {
		c := open(t, options{mount: mount, policy: policy(t, mount, role)})
		ctx := context.Background()
		for verb, try := range map[string]func() error{
			"load":    func() error { _, _, err := c.Load(ctx, "main"); return err },
			"save":    func() error { _, err := c.Save(ctx, "other", custodytest.Sample("other", 1), 0); return err },
			"create":  func() error { _, _, err := c.Create(ctx, "other", keyring.ES256, 0); return err },
			"list":    func() error { _, err := c.List(ctx, "main"); return err },
			"signer":  func() error { _, err := c.Signer(ctx, "main", k); return err },
			"destroy": func() error { return c.Destroy(ctx, "other", k.Handle) },
			"check":   func() error { return c.Check(ctx) },
			"anchor":  func() error { return c.SaveHeads(ctx, custody.Replica{Issuer: "main", Name: role}, []byte("{}"), 0) },
		} {
			err := try()
			if allowed := slices.Contains(may, verb); allowed != (err == nil) || (!allowed && !errors.Is(err, keyring.ErrDenied)) {
				t.Errorf("%s, %s: %v, allowed %v", role, verb, err, allowed)
			}
		}
	}
	aThief(t, mount, k)
	if v := stored(t, rotator, s); v != version {
		t.Errorf("version %d", v)
	}
}

// aThief has a token with all three policies. What no code of ours does, it
// cannot do either.
func aThief(t *testing.T, mount string, k keyring.Key) {
	t.Helper()
	all := vault.Token(t, vaulttest.TokenOptions{Policies: []string{vault.Policy(t, policy(t, mount))}})
	thief, err := vault.Client().Clone()
	if err != nil {
		t.Fatal(err)
	}
	thief.SetToken(all)
	key := mount + "/data/issuers/main/keys/" + k.Handle
	half := map[string]any{"data": map[string]any{"private_key": "x"}, "options": map[string]any{"cas": 1}}
	for what, try := range map[string]func() error{
		"replace a half":                 func() error { _, err := thief.Logical().Write(key, half); return err },
		"delete a half's data":           func() error { _, err := thief.Logical().Delete(key); return err },
		"delete the manifest":            func() error { _, err := thief.Logical().Delete(mount + "/data/issuers/main/manifest"); return err },
		"delete the manifest's metadata": func() error { _, err := thief.Logical().Delete(mount + "/metadata/issuers/main/manifest"); return err },
		"destroy the manifest's versions": func() error {
			_, err := thief.Logical().Write(mount+"/destroy/issuers/main/manifest", map[string]any{"versions": []int{1}})
			return err
		},
		"loosen the mount": func() error {
			_, err := thief.Logical().Write(mount+"/config", map[string]any{"cas_required": false})
			return err
		},
		"loosen the manifest": func() error {
			_, err := thief.Logical().Write(mount+"/metadata/issuers/main/manifest", map[string]any{"cas_required": false})
			return err
		},
		"delete audit heads": func() error { _, err := thief.Logical().Delete(mount + "/data/issuers/main/audit/signer"); return err },
		"delete all traces of audit heads": func() error {
			_, err := thief.Logical().Delete(mount + "/metadata/issuers/main/audit/signer")
			return err
		},
		"see the issuers": func() error { _, err := thief.Logical().List(mount + "/metadata/issuers"); return err },
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s: %v, want 403", what, err)
		}
	}
}

func TestPolicyOfOneIssuer(t *testing.T) {
	t.Parallel()
	mount := vault.Mount(t)
	text, err := vaultkv.Policy("/"+mount+"/", []string{"main", "second"}, vaultkv.RoleRotator)
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, options{mount: mount, policy: text})
	for issuer, want := range map[string]error{"main": nil, "second": nil, "third": keyring.ErrDenied} {
		if _, err := c.Save(t.Context(), issuer, custodytest.Sample(issuer, 1), 0); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", issuer, err, want)
		}
	}
}

func TestPolicyRefuses(t *testing.T) {
	for _, tc := range []struct {
		mount   string
		issuers []string
		role    string
	}{
		{"", nil, "rotator"}, {"+", nil, "rotator"}, {`a"b`, nil, "rotator"}, {"kt", []string{"+"}, "rotator"}, {"kt", nil, "root"}, {"kt", nil, ""},
	} {
		if text, err := vaultkv.Policy(tc.mount, tc.issuers, tc.role); err == nil {
			t.Errorf("%+v gave\n%s", tc, text)
		}
	}
	text, err := vaultkv.Policy("kt", nil)
	if err != nil {
		t.Fatal(err)
	}
	// The union names no path twice: Vault would take the last.
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "path ") && seen[line] {
			t.Errorf("twice: %s", line)
		}
		seen[line] = true
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	kv := func(version int, settings map[string]any) func(name string) {
		return func(name string) { vault.EnableKV(t, name, version, settings) }
	}
	for name, tc := range map[string]struct {
		make func(name string)
		want []string
	}{
		"fine":      {kv(2, map[string]any{"cas_required": true}), nil},
		"deep/er":   {kv(2, map[string]any{"cas_required": true}), nil},
		"many":      {kv(2, map[string]any{"cas_required": true, "max_versions": 5}), nil},
		"v1":        {kv(1, nil), []string{"version 1", "vault kv enable-versioning MOUNT"}},
		"no-cas":    {kv(2, map[string]any{"cas_required": false}), []string{"vault write MOUNT/config cas_required=true"}},
		"few":       {kv(2, map[string]any{"cas_required": true, "max_versions": 2}), []string{"keeps 2", "max_versions=0"}},
		"vanishing": {kv(2, map[string]any{"cas_required": true, "delete_version_after": "720h"}), []string{"delete_version_after=0s"}},
		"all-bad":   {kv(2, map[string]any{"max_versions": 1, "delete_version_after": "1h"}), []string{"cas_required=true", "max_versions=0", "delete_version_after=0s"}},
		"missing":   {func(string) {}, []string{"vault secrets enable -path=MOUNT -version=2 kv"}},
		"cubbyhole": {nil, []string{`type "cubbyhole"`}},
	} {
		if tc.make != nil {
			name = vault.Unique(name)
			tc.make(name)
		}
		c := open(t, options{mount: name})
		err := c.Check(t.Context())
		if len(tc.want) == 0 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tc.want {
			want = strings.ReplaceAll(want, "MOUNT", name)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v does not say %q", name, err, want)
			}
		}
	}
	outer := vault.Unique("outer")
	vault.EnableKV(t, outer, 2, map[string]any{"cas_required": true})
	inner := open(t, options{mount: outer + "/inner"})
	if err := inner.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "name the mount itself") {
		t.Errorf("a path inside a mount: %v", err)
	}
	blind := open(t, options{mount: outer, policy: `path "` + outer + `/data/issuers/+/manifest" { capabilities = ["read"] }`})
	if err := blind.Check(t.Context()); !errors.Is(err, keyring.ErrDenied) || !strings.Contains(err.Error(), outer+"/config") {
		t.Errorf("without the right to see the settings: %v", err)
	}
}

func TestSetup(t *testing.T) {
	t.Parallel()
	name := vault.Unique("setup")
	may := strings.ReplaceAll(`
path "sys/mounts/MOUNT" { capabilities = ["create", "update"] }
path "MOUNT/config" { capabilities = ["read", "update"] }
`, "MOUNT", name)
	c := open(t, options{mount: name, policy: may})
	for range 2 { // the second time it is there
		if err := c.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := open(t, options{mount: name}).Check(t.Context()); err != nil {
		t.Error(err)
	}
	// What is there is left as it is, and judged.
	vault.Write(t, name+"/config", map[string]any{"cas_required": false})
	if err := c.Setup(t.Context()); err == nil || !strings.Contains(err.Error(), "cas_required=true") {
		t.Errorf("Setup = %v", err)
	}
	if err := open(t, options{mount: vault.Unique("forbidden")}).Setup(t.Context()); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("without the right: %v", err)
	}
}
