package vaultsession

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/keyring"
)

// selfPolicy is what a token needs to keep itself alive.
const selfPolicy = `
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "secret/it" { capabilities = ["read"] }
`

func get(s *Session) error {
	_, err := s.Do(context.Background(), Request{Method: "GET", Path: "auth/token/lookup-self"})
	return err
}

func current(s *Session) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tok.value
}

// isAlive asks as root.
func isAlive(t *testing.T, value string) bool {
	t.Helper()
	_, err := vault.Client().Auth().Token().LookupWithContext(t.Context(), value)
	return err == nil
}

func roleConfig(url string, role vaulttest.AppRole) Config {
	return Config{Address: url, Auth: Auth{Method: MethodAppRole, Mount: role.Mount, RoleIDFile: role.RoleIDFile, SecretIDFile: role.SecretIDFile}}
}

func TestGivenToken(t *testing.T) {
	t.Parallel()
	value := vault.Token(t, vaulttest.TokenOptions{Policies: []string{vault.Policy(t, selfPolicy)}, TTL: 3 * time.Second})
	s, stop := running(t, Config{Address: vault.URL(), Auth: Auth{Method: MethodToken, Token: given(value)}})
	ready(t, s)
	first, ok := s.Expiry()
	if left := time.Until(first); !ok || left > 3*time.Second || left < time.Second {
		t.Fatalf("Expiry = %v from now, %v", left, ok)
	}
	eventually(t, 4*time.Second, "renewed", func() bool { now, _ := s.Expiry(); return now.After(first) })
	time.Sleep(time.Until(first) + 200*time.Millisecond)
	if err := get(s); err != nil {
		t.Errorf("past the first expiry: %v", err)
	}
	stop()
	if !isAlive(t, value) {
		t.Error("a token that the user gave was revoked")
	}
}

func TestTokenWithoutEndOrRights(t *testing.T) {
	t.Parallel()
	s, _ := running(t, Config{Address: vault.URL(), Auth: Auth{Method: MethodToken, Token: given(vault.RootToken() + "\n")}})
	ready(t, s)
	if at, ok := s.Expiry(); ok {
		t.Errorf("the root token ends at %v", at)
	}
	// One that may not look at itself is used all the same.
	value := vault.Token(t, vaulttest.TokenOptions{Policies: []string{vault.Policy(t, `path "secret/it" { capabilities = ["read"] }`)}})
	s, _ = running(t, Config{Address: vault.URL(), Auth: Auth{Method: MethodToken, Token: given(value)}})
	ready(t, s)
	if err := s.LastError(); err != nil {
		t.Errorf("LastError = %v", err)
	}
	if err := get(s); !errors.Is(err, keyring.ErrDenied) {
		t.Errorf("lookup = %v, want ErrDenied", err)
	}
	ready(t, s) // a plain refusal does not end the session
}

func TestTokenThatIsNone(t *testing.T) {
	t.Parallel()
	var l logs
	s, _ := running(t, Config{Address: vault.URL(), Logger: l.logger(), Auth: Auth{Method: MethodToken, Token: given("hvs.wrongwrongwrong")}})
	start := time.Now()
	err := s.Ready(t.Context())
	if !errors.Is(err, keyring.ErrDenied) || !strings.Contains(err.Error(), "is not one of this Vault") {
		t.Errorf("Ready = %v", err)
	}
	if again := s.Ready(t.Context()); again == nil || time.Since(start) > 3*time.Second {
		t.Errorf("Ready = %v after %v: it must not wait for the next try", again, time.Since(start))
	}
	if s.LastError() == nil {
		t.Error("LastError is nil")
	}
	if strings.Contains(l.String(), "wrongwrong") || strings.Contains(err.Error(), "wrongwrong") {
		t.Error("the token is shown")
	}
}

// TestSecretInAPipe: a FIFO that nobody writes into holds up no login.
func TestSecretInAPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := readSecret(path)
		done <- err
	}()
	select {
	case err := <-done:
		if err == nil {
			t.Error("an empty pipe holds a secret")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for somebody who writes")
	}
}

func TestTokenFile(t *testing.T) {
	t.Parallel()
	policy := vault.Policy(t, selfPolicy)
	file := filepath.Join(t.TempDir(), "token")
	put := func() string {
		value := vault.Token(t, vaulttest.TokenOptions{Policies: []string{policy}})
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return value
	}
	first := put()
	s, stop := running(t, Config{Address: vault.URL(), Auth: Auth{Method: MethodTokenFile, TokenFile: file}})
	ready(t, s)
	second := put()
	vault.Revoke(t, first)
	if err := get(s); err != nil {
		t.Errorf("after the file was exchanged: %v", err)
	}
	if current(s) != second {
		t.Error("the new token is not in use")
	}
	stop()
	if !isAlive(t, second) {
		t.Error("a token of somebody else was revoked")
	}
}

func TestAppRole(t *testing.T) {
	t.Parallel()
	var l logs
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}})
	cfg := roleConfig(vault.URL(), role)
	cfg.Logger = l.logger()
	s, stop := running(t, cfg)
	ready(t, s)
	if at, ok := s.Expiry(); !ok || time.Until(at) < 50*time.Minute {
		t.Errorf("Expiry = %v, %v", at, ok)
	}
	value := current(s)
	if !isAlive(t, value) {
		t.Fatal("no token")
	}
	stop()
	if isAlive(t, value) {
		t.Error("the token was not revoked")
	}
	secret, err := os.ReadFile(role.SecretIDFile)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"token": value, "secret id": strings.TrimSpace(string(secret))} {
		if strings.Contains(l.String(), text) {
			t.Errorf("the %s is in the log", what)
		}
	}
}

// A revoked token is noticed by a call, which waits for one new login, however
// many calls there are (fault 10).
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	proxy := vaulttest.NewProxy(t, vault.URL())
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}})
	s, _ := running(t, roleConfig(proxy.URL, role))
	ready(t, s)
	for range 2 {
		proxy.Requests()
		vault.Revoke(t, current(s))
		start := time.Now()
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				if err := get(s); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("back after %v", took)
		}
		logins := 0
		for _, r := range proxy.Requests() {
			if r == "PUT /v1/auth/approle/login" {
				logins++
			}
		}
		if logins != 1 {
			t.Errorf("%d logins", logins)
		}
	}
}

// A late refusal of an older token, or one that was no refusal at all, does
// not cost a login.
func TestInvalidateIsChecked(t *testing.T) {
	t.Parallel()
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}})
	proxy := vaulttest.NewProxy(t, vault.URL())
	s, _ := running(t, roleConfig(proxy.URL, role))
	ready(t, s)
	value := current(s)
	s.Invalidate(errors.New("somebody said so"))
	ready(t, s)
	// And when Vault cannot say, the callers find out.
	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.DropRequest })
	s.Invalidate(errors.New("somebody said so"))
	ready(t, s)
	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Pass })
	if err := get(s); err != nil {
		t.Error(err)
	}
	if current(s) != value {
		t.Error("it logged in again")
	}
}

// Near the end of the longest life there is a new login before the old token
// is dead: no call fails.
func TestMaximumLife(t *testing.T) {
	t.Parallel()
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}, TTL: 6 * time.Second, MaxTTL: 9 * time.Second})
	s, _ := running(t, roleConfig(vault.URL(), role))
	ready(t, s)
	tokens := map[string]bool{}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := get(s); err != nil {
			t.Fatal(err)
		}
		tokens[current(s)] = true
		if at, ok := s.Expiry(); !ok || time.Until(at) < 500*time.Millisecond {
			t.Fatalf("the token ends in %v and is still in use", time.Until(at))
		}
	}
	if len(tokens) != 2 {
		t.Errorf("%d tokens in 10 s of a longest life of 9 s", len(tokens))
	}
}

// Renewal fails for a while, and the token lives on.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}, TTL: 6 * time.Second})
	proxy := vaulttest.NewProxy(t, vault.URL())
	s, _ := running(t, roleConfig(proxy.URL, role))
	ready(t, s)
	value := current(s)
	failed := 0
	proxy.Decide(func(r *http.Request) vaulttest.Fault {
		if strings.HasSuffix(r.URL.Path, "renew-self") && failed < 1 {
			failed++
			return vaulttest.DropRequest
		}
		return vaulttest.Pass
	})
	eventually(t, 8*time.Second, "a renewal fails", func() bool { return s.LastError() != nil })
	if err := get(s); err != nil {
		t.Errorf("meanwhile: %v", err)
	}
	eventually(t, 5*time.Second, "the next one does not", func() bool { return s.LastError() == nil })
	if current(s) != value {
		t.Error("it logged in again")
	}
}

// Without the right to renew, the token is used up and replaced in time.
func TestNotRenewable(t *testing.T) {
	t.Parallel()
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, `path "auth/token/lookup-self" { capabilities = ["read"] }`)}, TTL: 3 * time.Second})
	s, _ := running(t, roleConfig(vault.URL(), role))
	ready(t, s)
	first := current(s)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := get(s); err != nil {
			t.Fatal(err)
		}
	}
	if current(s) == first {
		t.Error("no new login")
	}
}

func TestWrongSecretID(t *testing.T) {
	t.Parallel()
	role := vault.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{vault.Policy(t, selfPolicy)}})
	if err := os.WriteFile(role.SecretIDFile, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	proxy := vaulttest.NewProxy(t, vault.URL())
	var l logs
	cfg := roleConfig(proxy.URL, role)
	cfg.Logger = l.logger()
	s, _ := running(t, cfg)
	err := s.Ready(t.Context())
	if !errors.Is(err, keyring.ErrDenied) || !strings.Contains(err.Error(), "secret_id_file") {
		t.Errorf("Ready = %v", err)
	}
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := get(s); !errors.Is(err, keyring.ErrDenied) {
			t.Fatalf("get = %v", err)
		}
	}
	if n := len(proxy.Requests()); n != 1 {
		t.Errorf("%d requests in 2 s: it hammers", n)
	}
	if strings.Contains(l.String(), "hunter2") || strings.Contains(err.Error(), "hunter2") {
		t.Error("the secret id is shown")
	}
}
