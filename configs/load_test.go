package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyturn/keyturn/configs/strictyaml"
	"github.com/keyturn/keyturn/keyring"
)

const minimal = `store: local
state_dir: /var/lib/keyturn
local: {key_file: /etc/keyturn/seal.key}
issuers:
  - name: main
    revision: 1
    url: https://tokens.example.com
    publish: [{name: file, file: /srv/jwks.json}]
rings:
  - {name: web, issuer: main, algorithm: ES256, rotate: "0 3 * * 0"}
profiles:
  - name: orders
    ring: web
    allow: [{uid: 0}]
    subject: {fixed: me}
    audiences: [a]
audit: {file: /var/log/audit.jsonl}
`

const minimalVault = `state_dir: /var/lib/keyturn
vault:
  address: https://vault.example:8200
  auth: {method: approle, role_id_file: /etc/role, secret_id_file: /etc/secret}
issuers:
  - {name: main, revision: 1, url: "https://tokens.example.com", publish: [{name: file, file: /srv/jwks.json}]}
rings: [{name: web, issuer: main, algorithm: RS256, rotate: "0 3 * * 0"}]
audit: {file: /var/log/audit.jsonl}
`

// loadText loads a file of that text from a folder of its own.
func loadText(t *testing.T, text string, o Options) (*Config, []Warning, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "keyturn.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Environ = append([]string{"KEYTURN_CONFIG=" + file}, o.Environ...)
	return Load(o)
}

// edit replaces the first occurrence of a part of a text.
func edit(t *testing.T, text, old, with string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("no %q in the text", old)
	}
	return strings.Replace(text, old, with, 1)
}

func hostname(t *testing.T) string {
	t.Helper()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

func TestDefaults(t *testing.T) {
	cfg, warnings, err := loadText(t, minimal, Options{})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load = %v, warnings %q", err, warnings)
	}
	var root uint32
	want := &Config{
		File: cfg.File, Sum: cfg.Sum, Store: "local", StateDir: "/var/lib/keyturn", Replica: hostname(t), Roles: Roles(),
		SyncInterval: strictyaml.Duration(10 * time.Second), Watch: true, Log: Log{Level: "info", Format: "json"},
		Local: Local{Dir: "/var/lib/keyturn/custody", KeyFile: "/etc/keyturn/seal.key"},
		Listen: Listen{
			Sign:   []SignSocket{{Name: "default", Path: "/run/keyturn/sign.sock", Mode: "0660", ConnectionsPerUser: 64}},
			Admin:  AdminSocket{Path: "/run/keyturn/admin.sock", Mode: "0600"},
			Status: StatusListener{Addr: "127.0.0.1:9464"},
		},
		Issuers: []Issuer{{
			Name: "main", Revision: 1, URL: "https://tokens.example.com",
			ConsumerCache: strictyaml.Duration(15 * time.Minute), JWKSMaxAge: strictyaml.Duration(5 * time.Minute), Leeway: strictyaml.Duration(time.Minute),
			ClockSkew: strictyaml.Duration(10 * time.Second), MaxKeys: 100,
			Publish: []Target{{Name: "file", File: "/srv/jwks.json", Required: true}},
		}},
		Rings: []Ring{{Name: "web", Issuer: "main", Custody: "local", Algorithm: "ES256", Rotate: "0 3 * * 0", MaxTokenTTL: strictyaml.Duration(time.Hour)}},
		Profiles: []Profile{{
			Name: "orders", Ring: "web", Allow: []Allow{{UID: &root}}, Subject: Subject{Fixed: "me"}, Audiences: []string{"a"},
			TTL: TTL{Default: strictyaml.Duration(5 * time.Minute), Max: strictyaml.Duration(time.Hour)}, Typ: "JWT",
		}},
		Audit:     Audit{File: "/var/log/audit.jsonl", Required: true, AnchorInterval: strictyaml.Duration(time.Minute)},
		Hardening: Hardening{Landlock: "auto"},
	}
	if cfg.Lines["rings[0].rotate"] != 10 {
		t.Errorf("lines %v", cfg.Lines)
	}
	cfg.Lines = nil
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestVaultDefaults(t *testing.T) {
	cfg, _, err := loadText(t, minimalVault, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Vault{
		Address: "https://vault.example:8200", Mount: "keyturn", Timeout: strictyaml.Duration(5 * time.Second),
		Auth: Auth{Method: "approle", Mount: "approle", RoleIDFile: "/etc/role", SecretIDFile: "/etc/secret"},
	}
	if diff := cmp.Diff(want, cfg.Vault); diff != "" {
		t.Errorf("vault (-want +got):\n%s", diff)
	}
	if r := cfg.Rings[0]; r.Custody != "vaultkv" || r.RSABits != 3072 {
		t.Errorf("ring = custody %q, rsa_bits %d", r.Custody, r.RSABits)
	}
}

// All faults are told at once, in the order of the file; the echoes of a field
// that could not be read are not.
func TestAllFaultsAtOnce(t *testing.T) {
	text := edit(t, minimal, "- name: main", "- nane: main")
	text = edit(t, text, "https://tokens.example.com", "https://tokens.example.com/")
	text = edit(t, text, "uid: 0", "uid: -1")
	_, _, err := loadText(t, text, Options{})
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load = %v, want Faults", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, fmt.Sprintf("%d %s", f.line, f.Path))
	}
	want := []string{"5 issuers[0].nane", "7 issuers[0].url", "14 profiles[0].allow[0].uid"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s\n%v", diff, err)
	}
	if !strings.HasPrefix(err.Error(), "3 faults in the configuration:\n  /") {
		t.Errorf("error = %q", err)
	}
}

func TestFileItself(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct{ file, want string }{
		"missing":  {filepath.Join(dir, "none.yaml"), "name one with --config FILE or KEYTURN_CONFIG"},
		"folder":   {dir, "is a folder"},
		"empty":    {write("empty", "", 0o600), "is empty: configs/keyturn.yaml is a whole one to start from"},
		"comments": {write("comments", "# nothing\n", 0o600), "is empty"},
		"writable": {write("writable", minimal, 0o666), "chmod o-w"},
		"group":    {given(t, write("group", minimal, 0o660), -1, 1234), "chmod g-w"},
		"large":    {write("large", "#"+strings.Repeat("x", maxFile), 0o600), "is larger than 1048576 bytes, as no configuration is: name another file"},
		"list":     {write("list", "- a\n", 0o600), "is a list"},
		"null":     {write("null", "null\n", 0o600), "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Load(Options{Environ: []string{"KEYTURN_CONFIG=" + tc.file}})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want %q", err, tc.want)
			}
		})
	}
}

// Root may read everything, so that a file that cannot be read is made up.
func TestNotOpened(t *testing.T) {
	err := notOpened("/etc/keyturn.yaml", &fs.PathError{Op: "open", Path: "/etc/keyturn.yaml", Err: syscall.EACCES})
	want := fmt.Sprintf("read configuration: open /etc/keyturn.yaml: permission denied: uid %d has to be allowed to read it", os.Geteuid())
	if !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// given gives a file to a user and a group, which only root can.
func given(t *testing.T, path string, uid, gid int) string {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := os.Chown(path, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// Who owns a file can write it, whatever its mode.
func TestFileOfOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		uid, gid int
		mode     os.FileMode
		want     string // "" is fine; for root, who can make the case
	}{
		"ours, to read for a group": {0, 1234, 0o640, ""},
		"root's group writes":       {0, 0, 0o660, ""},
		"another user's":            {1234, 0, 0o600, "belongs to uid 1234"},
	} {
		file := filepath.Join(t.TempDir(), "keyturn.yaml")
		if err := os.WriteFile(file, []byte(minimal), 0o600); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() != 0 {
			tc.mode, tc.want = 0o600, ""
		}
		if err := os.Chmod(given(t, file, tc.uid, tc.gid), tc.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := Load(Options{Environ: []string{"KEYTURN_CONFIG=" + file}})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Load = %v, want %q", name, err, tc.want)
		}
	}
}

func TestTwoIssuersOnOneListener(t *testing.T) {
	text := edit(t, minimal, "    publish: [{name: file, file: /srv/jwks.json}]\n", `    publish: [{name: endpoint, http: true}]
  - name: other
    revision: 1
    url: https://other.example.com
    publish: [{name: endpoint, http: true}]
`)
	text = edit(t, text, "store: local", "store: local\nlisten: {public: {addr: \":8080\", insecure: true}}")
	_, _, err := loadText(t, text, Options{})
	if err == nil || !strings.Contains(err.Error(), "issuers[1].publish[0]") || !strings.Contains(err.Error(), "give this one another path") {
		t.Errorf("Load = %v", err)
	}
	text = edit(t, text, "https://other.example.com", "https://tokens.example.com/other")
	cfg, _, err := loadText(t, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Issuers[1].Publish[0].Path; got != "/other/.well-known/jwks.json" {
		t.Errorf("path = %q", got)
	}
}

func TestKeyring(t *testing.T) {
	text := edit(t, minimalVault, "publish: [", `outage_budget: 1h, confirm: ["https://cdn.example/jwks.json"], publish: [{name: a, file: /srv/a, required: false, view: spiffe}, `)
	cfg, _, err := loadText(t, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s, m := time.Second, time.Minute
	want := keyring.Config{
		Name: "main", URL: "https://tokens.example.com", Revision: 1, ConsumerCache: keyring.Duration(15 * m), JWKSMaxAge: keyring.Duration(5 * m),
		Leeway: keyring.Duration(m), OutageBudget: keyring.Duration(60 * m), ClockSkew: keyring.Duration(10 * s), SyncInterval: keyring.Duration(10 * s), MaxKeys: 100,
		Targets: []keyring.Target{
			{Name: "a", Kind: keyring.TargetFile, View: keyring.ViewSPIFFE},
			{Name: "file", Kind: keyring.TargetFile, Required: true},
			{Name: "https://cdn.example/jwks.json", Kind: keyring.TargetConfirm, Required: true},
		},
		Rings: []keyring.Ring{{Name: "web", Algorithm: keyring.RS256, RSABits: 3072, Custody: "vaultkv", Rotate: "0 3 * * 0", MaxTokenTTL: keyring.Duration(60 * m)}},
	}
	if diff := cmp.Diff(want, cfg.Issuers[0].Keyring(cfg), cmp.AllowUnexported(keyring.Config{}, keyring.Target{}, keyring.Ring{})); diff != "" {
		t.Errorf("Keyring (-want +got):\n%s", diff)
	}
	local, _, err := loadText(t, minimal, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if k := local.Issuers[0].Keyring(local); !k.SingleProcess || k.OutageBudget != 0 {
		t.Errorf("local: single_process %v, outage_budget %s", k.SingleProcess, k.OutageBudget)
	}
}

// A value that no type takes does not hide what is wrong behind it.
func TestFaultsBehindAValue(t *testing.T) {
	for name, broken := range map[string]string{
		"a claim":    "claims: {add: [{name: x, value: .inf}]}",
		"a duration": "ttl: {max: soon}",
	} {
		text := edit(t, minimal, "audiences: [a]\n", "audiences: [a]\n    "+broken+"\n  - {name: two, ring: web, allow: [{uid: 0}], subject: {fixed: me, pattern: x}, audiences: [a]}\n")
		_, _, err := loadText(t, text, Options{})
		var faults Faults
		if !errors.As(err, &faults) || len(faults) != 2 || faults[1].Path != "profiles[1].subject" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What others find stands in the order of the file, at the field or at the
// nearest one that the file has.
func TestFaultsOfOthers(t *testing.T) {
	cfg, _, err := loadText(t, minimal, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := JoinFaults(nil); err != nil {
		t.Errorf("no fault: %v", err)
	}
	err = JoinFaults([]Fault{
		cfg.Fault("profiles[0].typ", errors.New("third")),
		cfg.Fault("issuers[0]", errors.New("first")),
		cfg.Fault("rings[0].rotate", errors.New("second, 100% so")),
	})
	want := "3 faults in the configuration:\n  FILE:5: issuers[0]: first\n  FILE:10: rings[0].rotate: second, 100% so\n  FILE:12: profiles[0].typ: third"
	if got := strings.ReplaceAll(err.Error(), cfg.File, "FILE"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
