package vaultkv_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/keyring"
)

func TestManifestFaults(t *testing.T) {
	t.Parallel()
	mount := vault.Mount(t)
	c := open(t, options{mount: mount})
	doc, err := keyring.Encode(custodytest.Sample("main", 1))
	if err != nil {
		t.Fatal(err)
	}
	const path = "issuers/main/manifest"
	version := 0
	put := func(fields map[string]any) {
		t.Helper()
		vault.Write(t, mount+"/data/"+path, map[string]any{"data": fields, "options": map[string]any{"cas": version}})
		version++
	}
	manifest := func(doc string) func() { return func() { put(map[string]any{"manifest": doc}) } }
	for _, tc := range []struct {
		what  string
		do    func()
		want  error
		shown bool
	}{
		{"whole", manifest(string(doc)), nil, true},
		{"newer schema", manifest(strings.Replace(string(doc), `"schema":1`, `"schema":2`, 1)), keyring.ErrSchema, true},
		{"newer schema, unreadable", manifest(`{"schema":2,"keys":7}`), keyring.ErrSchema, false},
		{"cut", manifest(string(doc[:100])), keyring.ErrCorrupt, false},
		{"empty", manifest(""), keyring.ErrCorrupt, false},
		{"of another issuer", manifest(strings.Replace(string(doc), `"name":"main"`, `"name":"other"`, 1)), keyring.ErrCorrupt, false},
		{"as an object", func() { put(map[string]any{"manifest": map[string]any{"schema": 1}}) }, keyring.ErrCorrupt, false},
		{"another field", func() { put(map[string]any{"Manifest": string(doc)}) }, keyring.ErrCorrupt, false},
		{"deleted", func() { vault.Write(t, mount+"/delete/"+path, map[string]any{"versions": []int{version}}) }, keyring.ErrCorrupt, false},
		{"destroyed", func() { vault.Write(t, mount+"/destroy/"+path, map[string]any{"versions": []int{version}}) }, keyring.ErrCorrupt, false},
	} {
		tc.do()
		s, v, err := c.Load(t.Context(), "main")
		if (tc.want == nil) != (err == nil) || !errors.Is(err, tc.want) || errors.Is(err, keyring.ErrNoManifest) {
			t.Errorf("%s: Load = %v, want %v", tc.what, err, tc.want)
		}
		if v != version || (s != nil) != tc.shown {
			t.Errorf("%s: Load = %v, version %d, want %d", tc.what, s, v, version)
		}
	}
	if _, _, err := c.Load(t.Context(), "main"); !strings.Contains(err.Error(), "vault kv undelete") {
		t.Errorf("%q does not say how to mend it", err)
	}
	// Who has seen it can put one in its place, nobody else.
	next := custodytest.Sample("main", 2)
	for _, stale := range []int{0, version - 1} {
		if _, err := c.Save(t.Context(), "main", next, stale); !errors.Is(err, keyring.ErrConflict) {
			t.Errorf("Save over a deleted one with version %d: %v", stale, err)
		}
	}
	save(t, c, next, version)
	stored(t, c, next)
}

// Vault answers with a 500, as if it were away.
func TestManifestTooLarge(t *testing.T) {
	t.Parallel()
	c := open(t, options{})
	large := custodytest.Sample("main", 1)
	large.Lineage = strings.Repeat("x", 1<<20)
	if _, err := c.Save(t.Context(), "main", large, 0); err == nil || errors.Is(err, keyring.ErrUnavailable) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("1 MiB: %v", err)
	}
}

func TestHalfFaults(t *testing.T) {
	t.Parallel()
	mount := vault.Mount(t)
	c := open(t, options{mount: mount})
	k := create(t, c)
	const canary = "canary-of-a-private-half"
	for version, fields := range []map[string]any{
		{"private_key": canary}, {"private_key": 7}, {"private_key": map[string]any{"pem": canary}}, {"Private_Key": canary},
	} {
		vault.Write(t, mount+"/data/issuers/main/keys/"+k.Handle, map[string]any{"data": fields, "options": map[string]any{"cas": version + 1}})
		s, err := c.Signer(t.Context(), "main", k)
		if !errors.Is(err, keyring.ErrMismatch) || s != nil {
			t.Errorf("%v: Signer = %v, %v; want ErrMismatch", fields, s, err)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error shows what is stored: %v", err)
		}
	}
}

// A mount that is gone or of another version must never look like an issuer
// without a manifest.
func TestWrongMount(t *testing.T) {
	t.Parallel()
	one := vault.Unique("one")
	vault.EnableKV(t, one, 1, nil)
	vault.Write(t, one+"/data/issuers/main/manifest", map[string]any{"manifest": "{}"})
	for _, mount := range []string{one, vault.Unique("none")} {
		c := open(t, options{mount: mount})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := c.Load(ctx, "main"); err == nil || errors.Is(err, keyring.ErrNoManifest) {
			t.Errorf("%s: Load = %v", mount, err)
		}
		if _, err := c.Save(ctx, "main", custodytest.Sample("main", 1), 0); err == nil {
			t.Errorf("%s: saved", mount)
		}
	}
}
