package vaulttest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Unique makes a name that no other test on this server has.
func (s *Server) Unique(prefix string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names++
	return fmt.Sprintf("%s-%d", prefix, s.names)
}

func setupContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

// Mount makes a new mount as keyturn wants it, KV v2 with cas_required, and
// returns its name.
func (s *Server) Mount(t testing.TB) string {
	t.Helper()
	name := s.Unique("keyturn")
	s.EnableKV(t, name, 2, map[string]any{"cas_required": true})
	return name
}

// EnableKV mounts KV of a version; settings go to its config (version 2 only).
func (s *Server) EnableKV(t testing.TB, name string, version int, settings map[string]any) {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	err := s.client.Sys().MountWithContext(ctx, name, &vaultapi.MountInput{Type: "kv", Options: map[string]string{"version": fmt.Sprint(version)}})
	if err != nil {
		t.Fatalf("mount %s: %v", name, err)
	}
	if version == 2 {
		s.Write(t, name+"/config", settings)
	}
}

// Write writes as root. A KV v2 mount refuses for a moment after its birth.
func (s *Server) Write(t testing.TB, path string, data map[string]any) *vaultapi.Secret {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	for {
		secret, err := s.client.Logical().WriteWithContext(ctx, path, data)
		if err == nil {
			return secret
		}
		if !strings.Contains(err.Error(), "Upgrading from non-versioned") {
			t.Fatalf("write %s: %v", path, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Read reads as root; nil means that there is nothing.
func (s *Server) Read(t testing.TB, path string) *vaultapi.Secret {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	secret, err := s.client.Logical().ReadWithContext(ctx, path)
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return secret
}

// Policy stores a policy text under a new name and returns the name.
func (s *Server) Policy(t testing.TB, text string) string {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	name := s.Unique("policy")
	if err := s.client.Sys().PutPolicyWithContext(ctx, name, text); err != nil {
		t.Fatalf("policy: %v\n%s", err, text)
	}
	return name
}

// TokenOptions says what a token may do and for how long.
type TokenOptions struct {
	Policies []string
	TTL      time.Duration // one hour if zero
	MaxTTL   time.Duration // none if zero
	// NotRenewable is as it says.
	NotRenewable bool
}

// Token makes a token without the policy `default`, so that what a policy
// lacks shows.
func (s *Server) Token(t testing.TB, o TokenOptions) string {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	if o.TTL == 0 {
		o.TTL = time.Hour
	}
	renewable := !o.NotRenewable
	request := &vaultapi.TokenCreateRequest{Policies: o.Policies, NoDefaultPolicy: true, NoParent: true, TTL: o.TTL.String(), Renewable: &renewable}
	if o.MaxTTL > 0 {
		request.ExplicitMaxTTL = o.MaxTTL.String()
	}
	secret, err := s.client.Auth().Token().CreateWithContext(ctx, request)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	return secret.Auth.ClientToken
}

// Revoke ends a token at once.
func (s *Server) Revoke(t testing.TB, token string) {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	if err := s.client.Auth().Token().RevokeTreeWithContext(ctx, token); err != nil {
		t.Fatalf("revoke: %v", err)
	}
}

// AppRoleOptions says what a role's tokens may do and for how long.
type AppRoleOptions struct {
	Policies []string
	TTL      time.Duration // one hour if zero
	MaxTTL   time.Duration // none if zero
}

// AppRole is a role and the files to log in with.
type AppRole struct {
	Name, Mount              string
	RoleIDFile, SecretIDFile string
}

// AppRole makes a role whose tokens lack the policy `default`.
func (s *Server) AppRole(t testing.TB, o AppRoleOptions) AppRole {
	t.Helper()
	ctx, cancel := setupContext()
	defer cancel()
	const mount = "approle"
	// Another test may have been first.
	err := s.client.Sys().EnableAuthWithOptionsWithContext(ctx, mount, &vaultapi.EnableAuthOptions{Type: "approle"})
	if err != nil && !strings.Contains(err.Error(), "path is already in use") {
		t.Fatalf("enable approle: %v", err)
	}
	if o.TTL == 0 {
		o.TTL = time.Hour
	}
	role := AppRole{Name: s.Unique("role"), Mount: mount}
	s.Write(t, "auth/approle/role/"+role.Name, map[string]any{
		"token_policies": o.Policies, "token_no_default_policy": true,
		"token_ttl": o.TTL.String(), "token_max_ttl": o.MaxTTL.String(),
	})
	dir := t.TempDir()
	role.RoleIDFile, role.SecretIDFile = filepath.Join(dir, "role_id"), filepath.Join(dir, "secret_id")
	id := s.Read(t, "auth/approle/role/"+role.Name+"/role-id")
	writeFile(t, role.RoleIDFile, id.Data["role_id"].(string))
	s.NewSecretID(t, role)
	return role
}

// NewSecretID puts another secret id into the role's file.
func (s *Server) NewSecretID(t testing.TB, role AppRole) {
	t.Helper()
	secret := s.Write(t, "auth/approle/role/"+role.Name+"/secret-id", map[string]any{})
	writeFile(t, role.SecretIDFile, secret.Data["secret_id"].(string))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}
