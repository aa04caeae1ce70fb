package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/api"
)

// orders is a request for the profile of that name, like one in production.
var orders = api.SignRequest{
	Profile: "orders", Subject: "user-42",
	Claims: map[string]json.RawMessage{"tenant": json.RawMessage(`"acme"`), "client_id": json.RawMessage(`"shop"`), "scope": json.RawMessage(`"read write"`)},
}

// TestVaultRun is keyturn run on a file as the README's readers write one: two
// rings, TLS, confirmation by the public URL, access tokens, and an AppRole
// that may do no more than it must. Tokens outlive their key's lease here, so
// that its tail counts.
func TestVaultRun(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all").likeInProduction()
	client := s.certificate()
	env := []string{"SSL_CERT_FILE=" + s.path("ca.pem")}
	d := start(t, s.daemon(), env, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	tok, err := d.token(orders)
	must(t, err)
	if h, c := segment(tok.Token, 0), claimsOf(tok.Token); h["typ"] != "at+jwt" || c["env"] != "prod" || c["tenant"] != "acme" || c["iss"] != "https://"+s.public {
		t.Errorf("header %v, claims %v", h, c)
	}

	root := newSecrets(s, "main")
	jwks := "https://" + s.public + "/.well-known/jwks.json"
	tr := startTraffic(&traffic{
		t: t, client: client, endpoints: []string{jwks, "https://" + s.public + "/kubernetes/jwks.json"}, cache: vaultCache,
		callers: []caller{{"orders", d, orders}, {"invoices", d, api.SignRequest{Profile: "invoices"}}},
	})
	root.collect()
	tr.rotation(90*time.Second, 12*time.Second)
	root.collect()
	var live []string
	for _, ring := range []string{"web", "partners"} {
		for _, state := range []string{"active", "standby"} {
			k, _ := d.key(ring, state)
			live = append(live, k.Kid)
		}
	}
	root.matches(fetchSet(t, tr, jwks), live...)
	root.end(30*time.Second, tr.signers("orders")[0])

	said := d.answers()
	tr.end()
	if tokens := s.accessors(); len(tokens) != 1 {
		t.Errorf("the daemon has %d Vault tokens", len(tokens))
	}
	d.stop()
	if left := s.accessors(); len(left) != 0 {
		t.Errorf("%d Vault tokens outlive SIGTERM", len(left))
	}
	root.nowhere(said, s.dir)
}

// likeInProduction edits the file into one such as README's readers write.
func (s *vaultSite) likeInProduction() *vaultSite {
	s.edit("url: http://", "url: https://").edit("insecure: true", "tls: {cert_file: tls.pem, key_file: tls.key}").
		edit("{name: endpoint, http: true}", "{name: endpoint, http: true}\n      - {name: cluster, http: true, path: /kubernetes/jwks.json, view: kubernetes, required: false}\n    confirm: [\"https://"+s.public+"/.well-known/jwks.json\"]").
		edit(`"@every 28s", max_token_ttl: 5s`, `"*/30 * * * * *", max_token_ttl: 12s`).edit("outage_budget: 10s", "outage_budget: 6s").
		edit("profiles:\n", `  - {name: partners, issuer: main, algorithm: RS256, rsa_bits: 2048, rotate: "15/30 * * * * *", max_token_ttl: 4s}
profiles:
  - name: orders
    ring: web
    allow: [{socket: default, uid: `+fmt.Sprint(os.Getuid())+`}, {gid: 2000}]
    subject: {pattern: "^user-[0-9]+$"}
    audiences: ["api://orders"]
    claims: {allow: [scope, tenant, client_id], require: [tenant, client_id], add: [{name: env, value: prod}]}
    ttl: {default: 12s, max: 12s}
    typ: at+jwt
  - name: invoices
    ring: partners
    allow: [{socket: default}]
    subject: {from_peer: "uid:{uid}"}
    audiences: ["https://partner.example"]
`)
	return s
}

// certificate writes ca.pem, tls.pem and tls.key, and returns a client that
// trusts the first.
func (s *vaultSite) certificate() *http.Client {
	s.t.Helper()
	ca := newAuthority(s.t, s.path("ca.pem"))
	ca.serve(2, s.path("tls.pem"), s.path("tls.key"))
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
}

// TestVaultRolesApart runs each role in a process of its own, each with its own
// AppRole and policy.
func TestVaultRolesApart(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Mount(t)
	publisher := newVaultSite(t, server, mount, "publisher")
	signer := newVaultSite(t, server, mount, "signer")
	rotator := newVaultSite(t, server, mount, "rotator")
	jwks := "http://" + publisher.public + "/.well-known/jwks.json"
	sites := map[string]*vaultSite{"publisher": publisher, "signer": signer, "rotator": rotator}
	root := newSecrets(rotator, "main")
	daemons := startApart(t, sites, root, jwks)
	tr := startTraffic(&traffic{
		t: t, endpoints: []string{jwks}, callers: []caller{{"web", daemons["signer"], ask("web")}}, cache: vaultCache,
	})
	root.collect()
	mayOnly(t, sites, root, tr.signer("web"))
	// The standby is too young, and only the rotator rotates.
	for name, want := range map[string]int{"rotator": 1, "signer": 2, "publisher": 2} {
		if out, said, code := cli(t, nil, "rotate", "web", "--yes", "--admin-socket", daemons[name].admin); code != want {
			t.Errorf("keyturn rotate at the %s: exit code %d, want %d: %s%s", name, code, want, out, said)
		}
	}
	tr.rotation(60*time.Second, 5*time.Second)
	root.collect()
	standby, _ := daemons["rotator"].key("web", "standby")
	root.matches(fetchSet(t, tr, jwks), append(tr.signers("web"), standby.Kid)...)
	root.end(30*time.Second, tr.signers("web")[0])
	for name, d := range daemons {
		d.reason(10*time.Second, "ok", "", "")
		if _, h, err := d.health("/readyz/signer"); err != nil || (h.Status == "ok") != (name == "signer") {
			t.Errorf("%s: /readyz/signer: %+v, %v", name, h, err)
		}
	}
	docs := map[string][]byte{}
	for name, d := range daemons {
		for what, doc := range d.answers() {
			docs[name+": "+what] = doc
		}
	}
	tr.end()
	root.nowhere(docs, publisher.dir, signer.dir, rotator.dir)
}

// startApart gives the same issuer to all and starts the publisher last: till
// then nothing may be signed, whatever is in Vault.
func startApart(t *testing.T, sites map[string]*vaultSite, root *secrets, jwks string) map[string]*daemon {
	t.Helper()
	daemons := map[string]*daemon{}
	for _, s := range sites {
		// The same issuer in every file.
		s.edit("url: http://"+s.public, "url: http://"+sites["publisher"].public)
		s.edit("      - {name: file, file: jwks.json}\n      - {name: endpoint, http: true}\n",
			"      - {name: file, file: jwks.json, required: false}\n      - {name: endpoint, http: true, required: false}\n    confirm: [\""+jwks+"\"]\n")
	}
	daemons["signer"], daemons["rotator"] = sites["signer"].run(), sites["rotator"].run()
	daemons["signer"].logged(20*time.Second, `"msg":"started"`)
	// Nobody publishes yet: nothing may be signed, whatever is in Vault.
	within(t, 20*time.Second, "a first key that waits", func() error {
		k, found := daemons["signer"].key("web", "standby")
		if root.collect(); !found || len(root.halves) != 1 || !slices.Equal(k.WaitingFor, []string{jwks}) {
			return fmt.Errorf("standby %+v, halves in Vault %d", k, len(root.halves))
		}
		return nil
	})
	for range 10 {
		daemons["signer"].cannotSign(t)
		time.Sleep(200 * time.Millisecond)
	}
	daemons["publisher"] = sites["publisher"].run()
	daemons["signer"].canSign(30*time.Second, "web")
	return daemons
}

// mayOnly tries with each role's own token what the other roles do.
func mayOnly(t *testing.T, sites map[string]*vaultSite, root *secrets, kid string) {
	t.Helper()
	manifest := root.mount + "/data/issuers/main/manifest"
	overwrite := func(c *vaultapi.Client) error {
		_, err := c.Logical().Write(manifest, map[string]any{"options": map[string]any{"cas": 100000}, "data": map[string]any{"manifest": "{}"}})
		return err
	}
	verbs := map[string]func(c *vaultapi.Client) error{
		"read the manifest":  func(c *vaultapi.Client) error { return has(c.Logical().Read(manifest)) },
		"write the manifest": overwrite,
		"read a half":        func(c *vaultapi.Client) error { return has(c.Logical().Read(root.path("data", kid))) },
		"list the halves": func(c *vaultapi.Client) error {
			return has(c.Logical().List(root.mount + "/metadata/issuers/main/keys"))
		},
		"deposit a half": func(c *vaultapi.Client) error {
			_, err := c.Logical().Write(root.path("data", "of-"+kid), map[string]any{"options": map[string]any{"cas": 7}, "data": map[string]any{"private_key": "x"}})
			return err
		},
		"destroy a half": func(c *vaultapi.Client) error {
			_, err := c.Logical().Write(root.path("destroy", kid), map[string]any{"versions": []int{77}})
			return err
		},
		"delete a half's metadata": func(c *vaultapi.Client) error {
			_, err := c.Logical().Delete(root.path("metadata", "of-"+kid))
			return err
		},
		"delete the manifest": func(c *vaultapi.Client) error { _, err := c.Logical().Delete(manifest); return err },
	}
	may := map[string][]string{
		"publisher": {"read the manifest"},
		"signer":    {"read the manifest", "read a half"},
		"rotator":   {"read the manifest", "write the manifest", "read a half", "list the halves", "deposit a half", "destroy a half", "delete a half's metadata"},
	}
	for role, s := range sites {
		client := s.login()
		for _, verb := range slices.Sorted(maps.Keys(verbs)) {
			err := verbs[verb](client)
			denied := err != nil && strings.Contains(err.Error(), "Code: 403")
			// That the check-and-set is refused shows that the policy is not in the way.
			allowed := err == nil || strings.Contains(err.Error(), "check-and-set parameter did not match")
			if !denied && !allowed || allowed != slices.Contains(may[role], verb) {
				t.Errorf("%s: %s: %v", role, verb, err)
			}
		}
	}
}

func has(secret *vaultapi.Secret, err error) error {
	if err == nil && (secret == nil || secret.Data == nil) {
		err = fmt.Errorf("nothing there")
	}
	return err
}
