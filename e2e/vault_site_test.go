package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// vaultFile is a configuration on Vault with a fast clockwork: tail 7s, S
// 19.75s, so that a new key waits 22.75s of the 28 between two rotations.
// Names in capitals stand for what differs.
const vaultFile = `store: vault
state_dir: state
roles: [rotator, signer, publisher]
sync_interval: 500ms
log: {level: debug, format: json}
vault:
  address: VAULT
  mount: MOUNT
  timeout: 2s
  auth: {method: approle, mount: approle, role_id_file: ROLE_ID, secret_id_file: SECRET_ID}
listen:
  sign: [{name: default, path: sign.sock, mode: "0660"}]
  admin: {path: admin.sock}
  public: {addr: "PUBLIC", insecure: true}
  status: {addr: "STATUS"}
issuers:
  - name: main
    revision: 1
    url: http://PUBLIC
    consumer_cache: 2s
    jwks_max_age: 2s
    clock_skew: 1s
    leeway: 1s
    outage_budget: 10s
    publish:
      - {name: file, file: jwks.json}
      - {name: endpoint, http: true}
rings:
  - {name: web, issuer: main, algorithm: ES256, rotate: "@every 28s", max_token_ttl: 5s}
profiles:
  - name: web
    ring: web
    allow: [{socket: default}]
    subject: {pattern: "^[a-z]+$"}
    audiences: ["*"]
audit: {file: audit.jsonl}
`

// vaultCache is consumer_cache of vaultFile.
const vaultCache = 2 * time.Second

// sharedServer is the Vault of all tests that do it no harm.
var sharedServer struct {
	once   sync.Once
	dir    string
	server *vaulttest.Server
	err    error
}

func sharedVault(t *testing.T) *vaulttest.Server {
	t.Helper()
	s := &sharedServer
	s.once.Do(func() {
		if s.dir, s.err = os.MkdirTemp("", "keyturn-vault-"); s.err == nil {
			s.server, s.err = vaulttest.Launch(s.dir)
		}
	})
	if s.err != nil {
		t.Fatalf("this test needs a real Vault: %v", s.err)
	}
	return s.server
}

// closeSharedVault is for TestMain.
func closeSharedVault() {
	if sharedServer.server != nil {
		sharedServer.server.Close()
	}
	if sharedServer.dir != "" {
		_ = os.RemoveAll(sharedServer.dir)
	}
}

// vaultSite is a site whose keys are in Vault.
type vaultSite struct {
	*site
	vault *vaulttest.Server
	mount string
	role  vaulttest.AppRole
}

// newVaultSite has an AppRole of its own under a policy of deploy/vault: that of
// one role, or of all.
func newVaultSite(t *testing.T, server *vaulttest.Server, mount, role string) *vaultSite {
	t.Helper()
	text, err := os.ReadFile("../deploy/vault/" + role + ".hcl")
	must(t, err)
	policy := strings.ReplaceAll(string(text), `path "keyturn/`, `path "`+mount+"/")
	s := &vaultSite{site: newSite(t), vault: server, mount: mount}
	s.role = server.AppRole(t, vaulttest.AppRoleOptions{Policies: []string{server.Policy(t, policy)}})
	s.text = strings.NewReplacer("VAULT", server.URL(), "MOUNT", mount, "ROLE_ID", s.role.RoleIDFile, "SECRET_ID", s.role.SecretIDFile,
		"PUBLIC", s.public, "STATUS", s.status).Replace(vaultFile)
	if role != "all" {
		s.edit("[rotator, signer, publisher]", "["+role+"]")
	}
	return s
}

// get asks Vault as root, and returns the status and the body as they come.
func (s *vaultSite) get(method, path string) (int, []byte) {
	s.t.Helper()
	req, err := http.NewRequest(method, s.vault.URL()+"/v1/"+path, nil)
	must(s.t, err)
	req.Header.Set("X-Vault-Token", s.vault.RootToken())
	resp, err := http.DefaultClient.Do(req)
	must(s.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(s.t, err)
	return resp.StatusCode, body
}

// stored is a manifest, as far as the tests look at it.
type stored struct {
	Lineage    string      `json:"lineage"`
	Generation int         `json:"generation"`
	WriteID    string      `json:"write_id"`
	Lease      time.Time   `json:"lease"`
	Keys       []storedKey `json:"keys"`
}

type storedKey struct {
	JWK struct {
		Kid string `json:"kid"`
	} `json:"jwk"`
	Ring      string    `json:"ring"`
	Created   time.Time `json:"created"`
	Activated time.Time `json:"activated"`
	Retired   time.Time `json:"retired"`
	SignUntil time.Time `json:"sign_until"`
	Closed    time.Time `json:"closed"`
	Destroyed time.Time `json:"destroyed"`
}

// manifest reads a version of the manifest, 0 for the newest, and says which
// version it is.
func (s *vaultSite) manifest(issuer string, version int) (stored, int) {
	s.t.Helper()
	status, body := s.get("GET", fmt.Sprintf("%s/data/issuers/%s/manifest?version=%d", s.mount, issuer, version))
	if status != http.StatusOK {
		s.t.Fatalf("manifest of %s, version %d: status %d", issuer, version, status)
	}
	var reply struct {
		Data struct {
			Data     struct{ Manifest string }
			Metadata struct{ Version int }
		}
	}
	must(s.t, json.Unmarshal(body, &reply))
	var m stored
	must(s.t, json.Unmarshal([]byte(reply.Data.Data.Manifest), &m))
	return m, reply.Data.Metadata.Version
}

// activated are the kids of a ring that were ever active, as the manifest
// remembers them.
func (m stored) activated(ring string) []string {
	var kids []string
	for _, k := range m.Keys {
		if k.Ring == ring && !k.Activated.IsZero() {
			kids = append(kids, k.JWK.Kid)
		}
	}
	return kids
}

// login is a client of Vault with a token of the site's own role.
func (s *vaultSite) login() *vaultapi.Client {
	s.t.Helper()
	client, err := s.vault.Client().Clone()
	must(s.t, err)
	client.ClearToken()
	credentials := map[string]any{}
	for name, file := range map[string]string{"role_id": s.role.RoleIDFile, "secret_id": s.role.SecretIDFile} {
		text, err := os.ReadFile(file)
		must(s.t, err)
		credentials[name] = strings.TrimSpace(string(text))
	}
	secret, err := client.Logical().Write("auth/approle/login", credentials)
	must(s.t, err)
	client.SetToken(secret.Auth.ClientToken)
	s.t.Cleanup(func() { _ = client.Auth().Token().RevokeSelf("") })
	return client
}

// accessors are those of the tokens that the site's role has now.
func (s *vaultSite) accessors() []string {
	s.t.Helper()
	list, err := s.vault.Client().Logical().List("auth/token/accessors")
	must(s.t, err)
	var out []string
	for _, a := range list.Data["keys"].([]any) {
		info, err := s.vault.Client().Logical().Write("auth/token/lookup-accessor", map[string]any{"accessor": a})
		if err != nil {
			continue // it ended meanwhile
		}
		if meta, _ := info.Data["meta"].(map[string]any); meta["role_name"] == s.role.Name {
			out = append(out, a.(string))
		}
	}
	return out
}

// reason waits until /readyz has a status, and a reason with a code whose
// message holds a text; "" for no reason at all.
func (d *daemon) reason(limit time.Duration, status, code, text string) {
	d.t.Helper()
	within(d.t, limit, "/readyz says "+status+" "+code, func() error {
		got, h, err := d.health("/readyz")
		if err != nil {
			return err
		}
		if want := map[bool]int{true: 503, false: 200}[status == "unavailable"]; got != want || h.Status != status {
			return fmt.Errorf("status %d, %+v", got, h)
		}
		if code == "" && len(h.Reasons) == 0 {
			return nil
		}
		for _, r := range h.Reasons {
			if code != "" && r.Code == code && strings.Contains(r.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("reasons %+v", h.Reasons)
	})
}

// rotations is what the daemon has counted for a ring: the first activation
// included.
func (d *daemon) rotations(ring string) int {
	d.t.Helper()
	var n int
	line := d.metric(fmt.Sprintf("keyturn_rotations_total{issuer=\"main\",ring=%q}", ring))
	if _, err := fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n); err != nil {
		d.t.Fatalf("rotations %q: %v", line, err)
	}
	return n
}

// runToEnd runs keyturn where it has to end by itself, and returns all that it
// printed and its exit code.
func runToEnd(t *testing.T, limit time.Duration, env []string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, keyturn, args...)
	cmd.Env = append(cleanEnv(), env...)
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("keyturn %v has not ended within %s:\n%s", args, limit, out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}
