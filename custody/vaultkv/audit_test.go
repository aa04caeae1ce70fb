package vaultkv_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/keyring"
)

// TestHeadsLose: whatever becomes of a reply, what was saved is found, and a
// conflict is one.
func TestHeadsLose(t *testing.T) {
	t.Parallel()
	host := custody.Replica{Issuer: "main", Name: "host"}
	for what, faults := range lost {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, direct, proxy, _ := behind(t, options{})
			for version := range 2 {
				proxy.Next(isWrite, faults...)
				doc := fmt.Sprintf(`{"heads":%d}`, version)
				if err := c.SaveHeads(t.Context(), host, []byte(doc), version); err != nil {
					t.Fatal(err)
				}
				if got, v, err := direct.LoadHeads(t.Context(), host); err != nil || string(got) != doc || v != version+1 {
					t.Errorf("stored: %q, %d, %v", got, v, err)
				}
			}
			proxy.Next(isWrite, faults...)
			if err := c.SaveHeads(t.Context(), host, []byte("{}"), 1); !errors.Is(err, keyring.ErrConflict) {
				t.Errorf("a stale one: %v, want ErrConflict", err)
			}
		})
	}
}

// TestHeadsDeleted: what an operator took away begins anew, on its version.
func TestHeadsDeleted(t *testing.T) {
	t.Parallel()
	host := custody.Replica{Issuer: "main", Name: "host"}
	mount := vault.Mount(t)
	c := open(t, options{mount: mount})
	if err := c.SaveHeads(t.Context(), host, []byte("{}"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.Client().Logical().Delete(mount + "/data/issuers/main/audit/host"); err != nil {
		t.Fatal(err)
	}
	doc, version, err := c.LoadHeads(t.Context(), host)
	if err != nil || doc != nil || version != 1 {
		t.Fatalf("LoadHeads = %q, %d, %v", doc, version, err)
	}
	if err := c.SaveHeads(t.Context(), host, []byte("{}"), version); err != nil {
		t.Error(err)
	}
	vault.Write(t, mount+"/data/issuers/main/audit/other", map[string]any{"data": map[string]any{"heads": 7}, "options": map[string]any{"cas": 0}})
	if doc, _, err := c.LoadHeads(t.Context(), custody.Replica{Issuer: "main", Name: "other"}); !errors.Is(err, keyring.ErrCorrupt) {
		t.Errorf("what is no text: %q, %v", doc, err)
	}
}
