package configs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The example files, with what a shell or systemd would add.
var exampleEnv = []string{"CREDENTIALS_DIRECTORY=/run/credentials/keyturn", "VAULT_TOKEN=hvs.canary"}

func loadFile(t *testing.T, file string) *Config {
	t.Helper()
	cfg, warnings, err := Load(Options{Environ: append([]string{"KEYTURN_CONFIG=" + file}, exampleEnv...)})
	if err != nil || len(warnings) > 0 {
		t.Fatalf("Load(%s) = %v, warnings %q", file, err, warnings)
	}
	return cfg
}

// Every file in this folder loads, and what `config show` prints of it is the
// same configuration again.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("examples = %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			cfg := loadFile(t, file)
			shown, err := cfg.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(shown, []byte("hvs.canary")) {
				t.Fatalf("the token is shown:\n%s", shown)
			}
			again, _, err := loadText(t, strings.Replace(string(shown), "    token: '[redacted]'\n", "", 1), Options{Environ: exampleEnv})
			if err != nil {
				t.Fatalf("what is shown does not load: %v\n%s", err, shown)
			}
			again.File, again.Sum, again.Lines = cfg.File, cfg.Sum, cfg.Lines // which the defaults move
			if diff := cmp.Diff(cfg, again); diff != "" {
				t.Errorf("what is shown is another configuration (-loaded +shown):\n%s", diff)
			}
		})
	}
}

// keyturn.yaml is said to hold every setting: a field that it lacks, even as a
// comment, is missing from it.
func TestExampleIsWhole(t *testing.T) {
	doc, err := os.ReadFile("keyturn.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{
		"store", "state_dir", "roles", "sync_interval", "level", "format", "address", "namespace", "ca_cert_file", "mount", "timeout",
		"method", "role_id_file", "secret_id_file", "token_file", "dir", "key_file", "sign", "admin", "public", "status", "path", "mode",
		"group", "allow", "addr", "tls", "cert_file", "insecure", "revision", "url", "consumer_cache", "jwks_max_age", "leeway",
		"outage_budget", "clock_skew", "max_keys", "publish", "confirm", "file", "http", "required", "view", "issuer", "custody",
		"algorithm", "rsa_bits", "rotate", "max_token_ttl", "ring", "when", "rate", "per_second", "burst", "watch", "subject", "fixed", "from_peer", "pattern", "audiences", "claims",
		"require", "add", "ttl", "default", "max", "typ", "audit", "socket", "uid", "gid", "landlock", "connect_ports", "replica", "anchor_interval",
	} {
		if !bytes.Contains(doc, []byte(field+":")) {
			t.Errorf("keyturn.yaml does not show %s", field)
		}
	}
}

// The list in doc.go is what the environment may set, no more and no less.
func TestDocumentedEnvironment(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	fmt.Fprintf(&want, "//\t%-33s the file itself (--config)\n", "KEYTURN_CONFIG")
	for _, s := range scalars() {
		fmt.Fprintf(&want, "//\t%-33s %s", s.env(), s.path)
		if s.flag != "" {
			fmt.Fprintf(&want, " (--%s)", s.flag)
		}
		if s.vault != "" {
			fmt.Fprintf(&want, ", %s", s.vault)
		}
		want.WriteByte('\n')
	}
	if !bytes.Contains(doc, []byte(want.String())) {
		t.Errorf("doc.go should list:\n%s", want.String())
	}
}

// The try-out keeps the promise that it shows off: its timing passes the
// solver, with store local and with Vault.
func TestDev(t *testing.T) {
	for _, tc := range []struct {
		vault bool
		gap   time.Duration
	}{{false, time.Minute}, {true, 2 * time.Minute}} {
		t.Run(fmt.Sprintf("vault=%v", tc.vault), func(t *testing.T) {
			dir := t.TempDir()
			env := append([]string{"KEYTURN_STATE_DIR=/var/lib/keyturn", "KEYTURN_LOG_LEVEL=debug", "VAULT_ADDR=http://127.0.0.1:1234"}, exampleEnv...)
			cfg, _, err := Dev(DevOptions{Dir: dir, Vault: tc.vault, UID: 4242, Options: Options{Environ: env}})
			if err != nil {
				t.Fatal(err)
			}
			if cfg.StateDir != filepath.Join(dir, "state") {
				t.Errorf("state_dir = %s: the environment of another daemon was heeded", cfg.StateDir)
			}
			if cfg.Replica != filepath.Base(dir) {
				t.Errorf("replica %s: the log of another try-out is anchored under it", cfg.Replica)
			}
			if uid := cfg.Profiles[0].Allow[0].UID; uid == nil || *uid != 4242 {
				t.Errorf("allow = %+v, want uid 4242", cfg.Profiles[0].Allow)
			}
			if tc.vault && (cfg.Vault.Address != "http://127.0.0.1:1234" || cfg.Vault.Auth.Token.Reveal() != "hvs.canary") {
				t.Errorf("vault = %v", cfg.Vault)
			}
			if cfg.Log.SlogLevel() != slog.LevelDebug {
				t.Errorf("log level %q", cfg.Log.Level)
			}
			gaps := map[string]time.Duration{"dev": tc.gap}
			k := cfg.Issuers[0].Keyring(cfg).Resolve(gaps)
			if err := k.Check(gaps); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDevFollowsItsAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8000": "http://127.0.0.1:8000", "localhost:8000": "http://localhost:8000", "[::1]:8000": "http://[::1]:8000",
		":8000": "http://127.0.0.1:8000", "0.0.0.0:8000": "http://127.0.0.1:8000", "127.0.0.1:0": "http://127.0.0.1:9463",
	} {
		fs := flagSet(t, "--public-addr="+addr)
		cfg, _, err := Dev(DevOptions{Dir: t.TempDir(), Options: Options{Flags: fs}})
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.Issuers[0].URL; got != want {
			t.Errorf("--public-addr %s: url = %s, want %s", addr, got, want)
		}
	}
}

// VAULT_SKIP_VERIFY and plain HTTP to another machine are for trying out only,
// and even there they are talked about.
func TestDevOverPlainHTTP(t *testing.T) {
	env := []string{"VAULT_ADDR=http://vault:8200", "VAULT_TOKEN=root", "VAULT_SKIP_VERIFY=1"}
	_, warnings, err := Dev(DevOptions{Dir: t.TempDir(), Vault: true, Options: Options{Environ: env}})
	if err != nil || len(warnings) != 2 {
		t.Errorf("Dev = %v, warnings %q", err, warnings)
	}
}
