package vaultkv_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/keyring"
)

// Every way in which a reply gets lost, after which the write must be found
// stored once, by the caller too.
var lost = map[string][]vaulttest.Fault{
	"the request":               {vaulttest.DropRequest},
	"the reply":                 {vaulttest.DropReply},
	"the reply, then a request": {vaulttest.DropReply, vaulttest.DropRequest},
	"a request, then the reply": {vaulttest.DropRequest, vaulttest.DropReply},
	"three replies":             {vaulttest.DropReply, vaulttest.DropReply, vaulttest.DropReply},
	"in the leader":             {vaulttest.Answer500},
	"to nobody":                 {vaulttest.Answer307, vaulttest.Answer307},
	"and pretended":             {vaulttest.Answer204},
	"once redirected":           {vaulttest.Answer307},
}

func TestSaveLoses(t *testing.T) {
	t.Parallel()
	for what, faults := range lost {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, direct, proxy, _ := behind(t, options{})
			first, second := custodytest.Sample("main", 1), custodytest.Sample("main", 2)
			for i, s := range []*keyring.Snapshot{first, second} {
				proxy.Next(isWrite, faults...)
				v, err := c.Save(t.Context(), "main", s, i)
				if err != nil {
					t.Fatalf("generation %d: %v", i+1, err)
				}
				if at := stored(t, direct, s); at != v || v != i+1 {
					t.Errorf("generation %d: Save says version %d, %d is stored", i+1, v, at)
				}
			}
			// And a conflict is still one.
			proxy.Next(isWrite, faults...)
			if v, err := c.Save(t.Context(), "main", custodytest.Sample("main", 2), 1); !errors.Is(err, keyring.ErrConflict) {
				t.Errorf("a stale one: %d, %v; want ErrConflict", v, err)
			}
			stored(t, direct, second)
		})
	}
}

func TestCreateLoses(t *testing.T) {
	t.Parallel()
	for what, faults := range lost {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, direct, proxy, _ := behind(t, options{})
			proxy.Next(isWrite, faults...)
			k := create(t, c)
			if kids, err := direct.List(t.Context(), "main"); err != nil || len(kids) != 1 || kids[0] != k.JWK.Kid {
				t.Errorf("List = %q, %v", kids, err)
			}
			if _, err := direct.Signer(t.Context(), "main", k); err != nil {
				t.Error(err)
			}
		})
	}
}

// Our write was applied, its reply was lost, and before we ask again somebody
// has built on it: that is a conflict, and nothing is written twice.
func TestSaveLosesAndIsOvertaken(t *testing.T) {
	t.Parallel()
	c, direct, proxy, _ := behind(t, options{})
	ours, theirs := custodytest.Sample("main", 1), custodytest.Sample("main", 2)
	n := 0
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		if !isWrite(r) {
			return vaulttest.Pass
		}
		switch n++; n {
		case 1:
			return vaulttest.DropReply
		case 2:
			save(t, direct, theirs, 1)
		}
		return vaulttest.Pass
	})
	if v, err := c.Save(t.Context(), "main", ours, 0); !errors.Is(err, keyring.ErrConflict) {
		t.Errorf("Save = %d, %v; want ErrConflict", v, err)
	}
	if v := stored(t, direct, theirs); v != 2 {
		t.Errorf("version %d", v)
	}
}

// No definite answer until the caller's time is up.
func TestSaveRunsOutOfTime(t *testing.T) {
	t.Parallel()
	for what, tc := range map[string]struct {
		fault  vaulttest.Fault
		stored bool
	}{
		"nothing arrives":       {vaulttest.DropRequest, false},
		"no reply ever arrives": {vaulttest.DropReply, true},
		"it hangs":              {vaulttest.Hang, true},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c, direct, proxy, _ := behind(t, options{})
			proxy.Decide(func(r *http.Request) vaulttest.Fault {
				if isWrite(r) {
					return tc.fault
				}
				return vaulttest.Pass
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			s := custodytest.Sample("main", 1)
			start := time.Now()
			v, err := c.Save(ctx, "main", s, 0)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			if tc.stored {
				if err != nil || v != 1 {
					t.Fatalf("Save = %d, %v; it is stored", v, err)
				}
				stored(t, direct, s)
				return
			}
			if !errors.Is(err, keyring.ErrUnavailable) || errors.Is(err, keyring.ErrConflict) {
				t.Errorf("Save = %d, %v; want ErrUnavailable", v, err)
			}
			if _, _, err := direct.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrNoManifest) {
				t.Errorf("Load = %v", err)
			}
		})
	}
}

func TestCancelledWhileSaving(t *testing.T) {
	t.Parallel()
	c, direct, proxy, _ := behind(t, options{})
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		if isWrite(r) {
			time.AfterFunc(100*time.Millisecond, cancel)
			return vaulttest.Hang
		}
		return vaulttest.Pass
	})
	s := custodytest.Sample("main", 1)
	if v, err := c.Save(ctx, "main", s, 0); err != nil || v != 1 {
		t.Errorf("Save = %d, %v; it is stored", v, err)
	}
	stored(t, direct, s)
	if _, err := c.Save(ctx, "main", custodytest.Sample("main", 2), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("Save after cancellation = %v", err)
	}
	stored(t, direct, s)
}

// What is refused for a time is not repeated here, and says when to come back;
// until then nobody is asked.
func TestQuota(t *testing.T) {
	t.Parallel()
	c, direct, proxy, _ := behind(t, options{})
	if _, _, err := c.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrNoManifest) {
		t.Fatal(err)
	}
	proxy.Requests()
	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Answer429 })
	_, _, errLoad := c.Load(t.Context(), "main")
	_, errSave := c.Save(t.Context(), "main", custodytest.Sample("main", 1), 0)
	_, _, errCreate := c.Create(t.Context(), "main", keyring.ES256, 0)
	_, errList := c.List(t.Context(), "main")
	errDestroy := c.Destroy(t.Context(), "main", "kid")
	for i, err := range []error{errLoad, errSave, errCreate, errList, errDestroy} {
		var asks interface{ RetryAfter() time.Duration }
		if !errors.Is(err, keyring.ErrUnavailable) || !errors.As(err, &asks) || asks.RetryAfter() <= 0 || asks.RetryAfter() > 7*time.Second {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if n := len(proxy.Requests()); n != 1 {
		t.Errorf("%d requests for 5 calls, and the first was asked to wait", n)
	}
	if _, _, err := direct.Load(t.Context(), "main"); !errors.Is(err, keyring.ErrNoManifest) {
		t.Errorf("Load = %v", err)
	}
}

func TestVaultAway(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	c := open(t, options{server: server, timeout: time.Second})
	s := custodytest.Sample("main", 1)
	save(t, c, s, 0)
	k := create(t, c)
	all := func(state string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, errLoad := c.Load(ctx, "main")
		_, errList := c.List(ctx, "main")
		_, errSigner := c.Signer(ctx, "main", k)
		_, errSave := c.Save(ctx, "main", custodytest.Sample("main", 2), 1)
		_, _, errCreate := c.Create(ctx, "main", keyring.ES256, 0)
		for i, err := range []error{errLoad, errList, errSigner, errSave, errCreate} {
			if !errors.Is(err, keyring.ErrUnavailable) || errors.Is(err, keyring.ErrNoManifest) || errors.Is(err, keyring.ErrNoKey) || errors.Is(err, keyring.ErrConflict) {
				t.Errorf("%s, call %d: %v, want ErrUnavailable", state, i, err)
			}
		}
	}
	back := func(state string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			got, _, err := c.Load(t.Context(), "main")
			if err == nil && got.WriteID == s.WriteID {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after %s: %v", state, err)
			}
		}
		if _, err := c.Signer(t.Context(), "main", k); err != nil {
			t.Errorf("after %s: %v", state, err)
		}
	}
	server.Seal(t)
	all("sealed")
	server.Unseal(t)
	back("the seal")
	server.Kill()
	all("stopped")
	server.Restart(t)
	back("the stop")
}

// The token is revoked under the custody's feet: the next call logs in.
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	c, _, proxy, _ := behind(t, options{})
	var token string
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		token = r.Header.Get("X-Vault-Token")
		return vaulttest.Pass
	})
	version := 0
	for generation := range uint64(3) {
		s := custodytest.Sample("main", generation+1)
		start := time.Now()
		version = save(t, c, s, version)
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		stored(t, c, s)
		vault.Revoke(t, token)
	}
}

// No fault makes a private half appear in an error or in the log (fault 40).
func TestCanary(t *testing.T) {
	t.Parallel()
	var seed []byte
	var l logs
	c, _, proxy, _ := behind(t, options{log: &l, gen: func(keyring.Algorithm, int) (crypto.Signer, error) {
		_, private, err := ed25519.GenerateKey(nil)
		seed = private.Seed()
		return private, err
	}})
	var k keyring.Key
	out := func(err error) {
		if err != nil {
			_, _ = l.Write([]byte(err.Error()))
		}
	}
	for _, fault := range []vaulttest.Fault{vaulttest.Pass, vaulttest.DropReply, vaulttest.Answer500, vaulttest.Answer429, vaulttest.Answer204} {
		n := 0
		proxy.Decide(func(r *http.Request) vaulttest.Fault {
			if n++; n < 3 {
				return fault
			}
			return vaulttest.Pass
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		jwk, handle, err := c.Create(ctx, "main", keyring.EdDSA, 0)
		out(err)
		if err == nil {
			k = custodytest.KeyOf(jwk, handle)
			_, err := c.Signer(ctx, "main", k)
			out(err)
			out(c.Destroy(ctx, "main", handle))
		}
		cancel()
		for form, text := range map[string]string{
			"base64": base64.StdEncoding.EncodeToString(seed)[4:40], "raw": string(seed), "PEM": "PRIVATE KEY",
		} {
			if strings.Contains(l.String(), text) {
				t.Errorf("%s of the half after fault %d in: %s", form, fault, l.String())
			}
		}
	}
	// The search works: what is deposited has the seed in one of these forms.
	private := ed25519.NewKeyFromSeed(seed)
	gen := func(keyring.Algorithm, int) (crypto.Signer, error) { return private, nil }
	h, err := half.Generate(gen, keyring.EdDSA, 0)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := half.Encode(h)
	if err != nil || !bytes.Contains(doc, []byte("PRIVATE KEY")) {
		t.Errorf("%s, %v", doc, err)
	}
}
