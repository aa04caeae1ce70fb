package vaultkv_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/keyring"
)

// wantGone reads as root that neither data nor metadata is left.
func wantGone(t *testing.T, mount, handle string) {
	t.Helper()
	for _, kind := range []string{"data", "metadata"} {
		if s := vault.Read(t, mount+"/"+kind+"/issuers/main/keys/"+handle); s != nil {
			t.Errorf("%s is still there: %v", kind, s.Data)
		}
	}
}

func TestDestroyLoses(t *testing.T) {
	t.Parallel()
	isDestroy := func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/destroy/") }
	isDelete := func(r *http.Request) bool { return r.Method == http.MethodDelete }
	isRead := func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/keys/")
	}
	for step, match := range map[string]func(*http.Request) bool{"destroy": isDestroy, "delete": isDelete, "read": isRead} {
		for what, faults := range lost {
			if step == "read" && what == "and pretended" {
				continue // no answer to a read looks like that
			}
			t.Run(step+"/"+what, func(t *testing.T) {
				t.Parallel()
				c, _, proxy, mount := behind(t, options{})
				k, other := create(t, c), create(t, c)
				proxy.Next(match, faults...)
				if err := c.Destroy(t.Context(), "main", k.Handle); err != nil {
					t.Fatal(err)
				}
				wantGone(t, mount, k.Handle)
				if kids, err := c.List(t.Context(), "main"); err != nil || len(kids) != 1 || kids[0] != other.JWK.Kid {
					t.Errorf("List = %q, %v", kids, err)
				}
			})
		}
	}
}

// A crash between the steps leaves a tombstone. It signs no more, it is
// listed, and Destroy finishes the work (fault 6).
func TestDestroyFinishes(t *testing.T) {
	t.Parallel()
	mount := vault.Mount(t)
	c := open(t, options{mount: mount})
	for what, crash := range map[string]func(path string){
		"destroyed": func(path string) { vault.Write(t, mount+"/destroy/"+path, map[string]any{"versions": []int{1}}) },
		"deleted":   func(path string) { vault.Write(t, mount+"/delete/"+path, map[string]any{"versions": []int{1}}) },
		"untouched": func(string) {},
		"two versions": func(path string) {
			vault.Write(t, mount+"/data/"+path, map[string]any{"data": map[string]any{"private_key": "second"}, "options": map[string]any{"cas": 1}})
		},
	} {
		k := create(t, c)
		crash("issuers/main/keys/" + k.Handle)
		if what == "destroyed" || what == "deleted" {
			if _, err := c.Signer(t.Context(), "main", k); !errors.Is(err, keyring.ErrNoKey) {
				t.Errorf("%s: Signer = %v, want ErrNoKey", what, err)
			}
		}
		if kids, err := c.List(t.Context(), "main"); err != nil || len(kids) != 1 {
			t.Errorf("%s: List = %q, %v", what, kids, err)
		}
		if err := c.Destroy(t.Context(), "main", k.Handle); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		wantGone(t, mount, k.Handle)
	}
}

// Cancelled in the midst, a destruction still finishes its try.
func TestDestroyIsNotCancelled(t *testing.T) {
	t.Parallel()
	c, _, proxy, mount := behind(t, options{})
	k := create(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		if strings.Contains(r.URL.Path, "/destroy/") {
			cancel()
		}
		return vaulttest.Pass
	})
	if err := c.Destroy(ctx, "main", k.Handle); err != nil {
		t.Errorf("Destroy = %v", err)
	}
	wantGone(t, mount, k.Handle)
	other := create(t, c)
	proxy.Requests()
	if err := c.Destroy(ctx, "main", other.Handle); !errors.Is(err, context.Canceled) || len(proxy.Requests()) > 0 {
		t.Errorf("cancelled before: Destroy = %v", err)
	}
	// A Vault that never lets go of it is not nil, and cancelling ends the tries.
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(700*time.Millisecond, cancel)
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		if r.Method == http.MethodDelete {
			return vaulttest.Answer204
		}
		return vaulttest.Pass
	})
	if err := c.Destroy(ctx, "main", other.Handle); !errors.Is(err, keyring.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Destroy = %v", err)
	}
}
