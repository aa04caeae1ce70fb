package vaultsession

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNewRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := Auth{Method: MethodToken, Token: given("t")}
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no address":        {Config{Auth: token}, "https://host:8200"},
		"no scheme":         {Config{Address: "vault.example:8200", Auth: token}, "https"},
		"http far away":     {Config{Address: "http://vault.example:8200", Auth: token}, "in the clear"},
		"another scheme":    {Config{Address: "ftp://vault.example", Auth: token}, "must be https"},
		"a password":        {Config{Address: "https://u:hunter2@vault.example", Auth: token}, "nothing but"},
		"a query":           {Config{Address: "https://vault.example?x=1", Auth: token}, "nothing but"},
		"no method":         {Config{Address: "https://v", Auth: Auth{}}, "auth method is missing"},
		"an unknown method": {Config{Address: "https://v", Auth: Auth{Method: "ldap"}}, `"ldap" is unknown`},
		"kubernetes":        {Config{Address: "https://v", Auth: Auth{Method: "kubernetes"}}, "kubernetes is not built yet"},
		"jwt":               {Config{Address: "https://v", Auth: Auth{Method: "jwt"}}, "jwt is not built yet"},
		"cert":              {Config{Address: "https://v", Auth: Auth{Method: "cert"}}, "cert is not built yet"},
		"no token":          {Config{Address: "https://v", Auth: Auth{Method: MethodToken}}, "the token is missing"},
		"a token of lines":  {Config{Address: "https://v", Auth: Auth{Method: MethodToken, Token: given("hunter2\nhunter3")}}, "one line"},
		"no token file":     {Config{Address: "https://v", Auth: Auth{Method: MethodTokenFile}}, "token_file is missing"},
		"no role id":        {Config{Address: "https://v", Auth: Auth{Method: MethodAppRole, SecretIDFile: "s"}}, "role_id_file is missing"},
		"no secret id":      {Config{Address: "https://v", Auth: Auth{Method: MethodAppRole, RoleIDFile: "r"}}, "secret_id_file is missing"},
		"no such CA":        {Config{Address: "https://v", CACertFile: "/nowhere", Auth: token}, "ca_cert_file"},
		"an empty CA":       {Config{Address: "https://v", CACertFile: empty, Auth: token}, "no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(tc.cfg)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("New = %v, want %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "hunter") {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
	for _, address := range []string{"http://127.0.0.1:8200", "http://localhost", "http://[::1]:8200", "https://vault.example/vault"} {
		if _, err := New(Config{Address: address, Auth: token}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if _, err := New(Config{Address: "http://vault.example", Insecure: true, Auth: token}); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func TestNothingPrintsTheToken(t *testing.T) {
	auth := Auth{Method: MethodToken, Token: given("hunter2")}
	cfg := Config{Address: "http://127.0.0.1:1", Auth: auth}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.settle(token{value: "hunter2"})
	var l logs
	l.logger().Info("all", "auth", auth, "config", cfg, "session", s)
	out := fmt.Sprintf("%v %+v %#v %v %+v %#v %v %+v %#v %s", auth, auth, auth, cfg, cfg, cfg, s, s, s, l.String())
	// fmt calls no method of an unexported field.
	hidden := struct {
		auth Auth
		cfg  Config
	}{auth, cfg}
	out += fmt.Sprintf("%v %+v %#v", hidden, hidden, hidden)
	if strings.Contains(out, "hunter2") {
		t.Errorf("printed: %s", out)
	}
}

// What the environment says does not count: VAULT_SKIP_VERIFY least of all.
func TestEnvironmentDoesNotCount(t *testing.T) {
	var seen http.Header
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		_, _ = w.Write([]byte(`{"data":{"ttl":0}}`))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"VAULT_SKIP_VERIFY": "true", "VAULT_TOKEN": "from-env", "VAULT_NAMESPACE": "from-env", "VAULT_WRAP_TTL": "5m",
		"VAULT_HEADERS": `{"From-Env":"yes"}`, "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_AGENT_ADDR": "http://127.0.0.1:1",
		"VAULT_MAX_RETRIES": "7",
	} {
		t.Setenv(name, value)
	}
	auth := Auth{Method: MethodToken, Token: given("given")}
	s, stop := running(t, Config{Address: server.URL, Auth: auth})
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: Ready = %v", err)
	}
	stop()

	s, stop = running(t, Config{Address: server.URL, CACertFile: ca, Auth: auth})
	ready(t, s)
	if _, err := s.Do(context.Background(), Request{Method: "GET", Path: "x"}); err != nil {
		t.Fatal(err)
	}
	stop()
	for name, want := range map[string]string{
		"X-Vault-Token": "given", "X-Vault-Namespace": "", "X-Vault-Wrap-Ttl": "", "From-Env": "", "X-Vault-Request": "true",
	} {
		if got := seen.Get(name); got != want {
			t.Errorf("header %s: %q, want %q", name, got, want)
		}
	}

	s, _ = running(t, Config{Address: server.URL, CACertFile: ca, Namespace: "ours", Auth: auth})
	ready(t, s)
	if got := seen.Get("X-Vault-Namespace"); got != "ours" {
		t.Errorf("namespace %q", got)
	}
}
