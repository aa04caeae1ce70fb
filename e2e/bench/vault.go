package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/internal/loopback"
)

// vaultSite is a real Vault dev server: in memory, no TLS, no audit device,
// which is Vault at its fastest. It is asked on loopback by the same load
// generator, with requests that were built beforehand too.
type vaultSite struct {
	dir, addr, root string
	port            *loopback.Port
	cmd             *exec.Cmd
	exited          chan error
	http            *http.Client
	input           string // what Transit signs: a token without its signature
}

// newVault starts a server with a P-256 key in Transit and a user who may have
// identity tokens. size is how many bytes Transit gets to sign.
func newVault(ctx context.Context, binary string, size int) (*vaultSite, error) {
	if binary == "" {
		var err error
		if binary, err = vaulttest.Bin(); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", "keyturn-bench-vault-")
	if err != nil {
		return nil, err
	}
	v := &vaultSite{dir: dir, root: "bench-root", exited: make(chan error, 1), http: &http.Client{Timeout: 20 * time.Second}}
	if err = v.start(ctx, binary); err == nil {
		err = errors.Join(v.setTransit(size), v.setIdentity())
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *vaultSite) start(ctx context.Context, binary string) error {
	var err error
	if v.port, err = loopback.Reserve(); err != nil {
		return err
	}
	v.addr = v.port.Addr()
	v.cmd = exec.Command(binary, "server", "-dev", "-dev-no-store-token", "-dev-root-token-id="+v.root, "-dev-listen-address="+v.addr, "-log-level=error")
	v.cmd.Env = append(os.Environ(), "HOME="+v.dir, "VAULT_ADDR=", "VAULT_TOKEN=", "SKIP_SETCAP=1")
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		return fmt.Errorf("run Vault: %w", err)
	}
	go func() { v.exited <- v.cmd.Wait() }()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if _, err = v.call(http.MethodGet, "sys/health", v.root, nil); err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("vault does not come up: %w", err)
		}
		select {
		case end := <-v.exited:
			v.exited <- end
			return fmt.Errorf("vault has ended: %w", cmp.Or(end, err))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (v *vaultSite) close() error {
	if v.cmd != nil && v.cmd.Process != nil {
		_ = v.cmd.Process.Kill() // it holds nothing worth a clean end
		<-v.exited
	}
	err := os.RemoveAll(v.dir)
	if v.port != nil {
		err = errors.Join(err, v.port.Release())
	}
	return err
}

// call speaks to Vault's API.
func (v *vaultSite) call(method, path, token string, body any) ([]byte, error) {
	doc, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(method, "http://"+v.addr+"/v1/"+path, bytes.NewReader(doc))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", token)
	resp, err := v.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, out)
	}
	return out, err
}

// setTransit makes a key and writes down the request and the public half.
func (v *vaultSite) setTransit(size int) error {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"transit","typ":"JWT"}`))
	claims := `{"iss":"https://tokens.example.com","pad":""}`
	if room := (size-len(header)-1)*3/4 - len(claims); room > 0 {
		claims = `{"iss":"https://tokens.example.com","pad":"` + strings.Repeat("x", room) + `"}`
	}
	v.input = header + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	_, err := v.call(http.MethodPost, "sys/mounts/transit", v.root, map[string]any{"type": "transit"})
	if err != nil {
		return err
	}
	if _, err := v.call(http.MethodPost, "transit/keys/bench", v.root, map[string]any{"type": "ecdsa-p256"}); err != nil {
		return err
	}
	doc, err := v.call(http.MethodGet, "transit/keys/bench", v.root, nil)
	if err != nil {
		return err
	}
	var key struct {
		Data struct {
			Keys map[string]struct {
				Public string `json:"public_key"`
			}
		}
	}
	if err := json.Unmarshal(doc, &key); err != nil {
		return err
	}
	block, _ := pem.Decode([]byte(key.Data.Keys["1"].Public))
	if block == nil {
		return fmt.Errorf("transit shows no public key: %s", doc)
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "transit", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"input": base64.StdEncoding.EncodeToString([]byte(v.input)), "marshaling_algorithm": "jws", "key_version": 1})
	if err != nil {
		return err
	}
	return errors.Join(v.save("transit.json", jwks), v.save("transit.http", v.request("POST /v1/transit/sign/bench/sha2-256", v.root, body)))
}

// setIdentity makes a user with an entity, who alone can have identity tokens.
func (v *vaultSite) setIdentity() error {
	for _, step := range []struct {
		path string
		body map[string]any
	}{
		{"identity/oidc/key/bench", map[string]any{"algorithm": "ES256", "allowed_client_ids": []string{"*"}, "rotation_period": "24h", "verification_ttl": "24h"}},
		{"identity/oidc/role/bench", map[string]any{"key": "bench", "ttl": "5m", "template": `{"tenant":"acme","scope":"orders:read orders:write"}`}},
		{"sys/policies/acl/bench", map[string]any{"policy": `path "identity/oidc/token/bench" { capabilities = ["read"] }`}},
		{"sys/auth/userpass", map[string]any{"type": "userpass"}},
		{"auth/userpass/users/bench", map[string]any{"password": "bench", "token_policies": "bench"}},
	} {
		if _, err := v.call(http.MethodPost, step.path, v.root, step.body); err != nil {
			return err
		}
	}
	doc, err := v.call(http.MethodPost, "auth/userpass/login/bench", "", map[string]any{"password": "bench"})
	if err != nil {
		return err
	}
	var login struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	if err := json.Unmarshal(doc, &login); err != nil {
		return err
	}
	return v.save("identity.http", v.request("GET /v1/identity/oidc/token/bench", login.Auth.Token, nil))
}

func (v *vaultSite) request(line, token string, body []byte) []byte {
	return fmt.Appendf(nil, "%s HTTP/1.1\r\nHost: vault\r\nX-Vault-Token: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", line, token, len(body), body)
}

func (v *vaultSite) path(name string) string { return filepath.Join(v.dir, name) }

func (v *vaultSite) save(name string, doc []byte) error {
	return os.WriteFile(v.path(name), doc, 0o600)
}

// transit measures signatures that are made inside Vault.
func (v *vaultSite) transit(b *bench) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		return b.load(ctx, name, "-tcp", v.addr, "-pid", fmt.Sprint(v.cmd.Process.Pid), "-request", v.path("transit.http"),
			"-mark", `"signature":"vault:v1:`, "-input", v.input, "-keys", v.path("transit.json"))
	}
}

// identity measures whole tokens of Vault's own.
func (v *vaultSite) identity(b *bench) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		jwks, err := v.call(http.MethodGet, "identity/oidc/.well-known/keys", "", nil)
		if err != nil {
			return err
		}
		if err := v.save("identity.json", jwks); err != nil {
			return err
		}
		return b.load(ctx, name, "-tcp", v.addr, "-pid", fmt.Sprint(v.cmd.Process.Pid), "-request", v.path("identity.http"), "-keys", v.path("identity.json"))
	}
}
