package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func flagSet(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fs
}

func TestPrecedence(t *testing.T) {
	flags := func(args ...string) *pflag.FlagSet { return flagSet(t, args...) }
	for name, tc := range map[string]struct {
		args, env []string
		want      string
	}{
		"file":           {nil, nil, "https://vault.example:8200"},
		"VAULT over it":  {nil, []string{"VAULT_ADDR=https://b:1"}, "https://b:1"},
		"KEYTURN over":   {nil, []string{"VAULT_ADDR=https://b:1", "KEYTURN_VAULT_ADDRESS=https://c:1"}, "https://c:1"},
		"flag over all":  {[]string{"--vault-address=https://d:1"}, []string{"VAULT_ADDR=https://b:1", "KEYTURN_VAULT_ADDRESS=https://c:1"}, "https://d:1"},
		"empty is unset": {nil, []string{"VAULT_ADDR=", "KEYTURN_VAULT_ADDRESS="}, "https://vault.example:8200"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _, err := loadText(t, minimalVault, Options{Flags: flags(tc.args...), Environ: tc.env})
			if err != nil {
				t.Fatal(err)
			}
			if cfg.Vault.Address != tc.want {
				t.Errorf("vault.address = %q, want %q", cfg.Vault.Address, tc.want)
			}
		})
	}
	t.Run("fault names its origin", func(t *testing.T) {
		for _, tc := range []struct {
			args, env []string
			want      string
		}{
			{[]string{"--log-level=loud"}, []string{"KEYTURN_LOG_LEVEL=x"}, "--log-level: log.level: "},
			{nil, []string{"KEYTURN_LOG_LEVEL=x"}, "KEYTURN_LOG_LEVEL: log.level: "},
			{nil, []string{"VAULT_ADDR=vault:8200"}, "VAULT_ADDR: vault.address: "},
		} {
			_, _, err := loadText(t, minimalVault, Options{Flags: flags(tc.args...), Environ: tc.env})
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Errorf("Load = %v, want %q…", err, tc.want)
			}
		}
	})
	t.Run("config flag over KEYTURN_CONFIG", func(t *testing.T) {
		_, _, err := Load(Options{Flags: flags("--config=/nowhere/a"), Environ: []string{"KEYTURN_CONFIG=/nowhere/b"}})
		if err == nil || !strings.Contains(err.Error(), "/nowhere/a") {
			t.Errorf("Load = %v", err)
		}
		if _, _, err := Load(Options{}); err != nil && !strings.Contains(err.Error(), DefaultFile) {
			t.Errorf("Load = %v", err)
		}
	})
}

func TestEnvironment(t *testing.T) {
	t.Run("unknown is warned about", func(t *testing.T) {
		_, warnings, err := loadText(t, minimal, Options{Environ: []string{
			"KEYTURN_PORT_8443_TCP=tcp://1.2.3.4", "KEYTURN_LOG_LEVLE=debug", "KEYTURN_SOCKET=/x", "KEYTURN_ADMIN_SOCKET=/y", "OTHER=1",
		}})
		if err != nil || len(warnings) != 2 {
			t.Fatalf("Load = %v, warnings %q", err, warnings)
		}
		if w := string(warnings[0]); !strings.Contains(w, "KEYTURN_LOG_LEVLE") || !strings.Contains(w, "is it KEYTURN_LOG_LEVEL?") {
			t.Errorf("warning %q", w)
		}
		if w := string(warnings[1]); !strings.Contains(w, "KEYTURN_PORT_8443_TCP") || !strings.Contains(w, "enableServiceLinks") {
			t.Errorf("warning %q", w)
		}
	})
	t.Run("VAULT_* say nothing to store local", func(t *testing.T) {
		cfg, _, err := loadText(t, minimal, Options{Environ: []string{"VAULT_ADDR=nonsense", "VAULT_TOKEN=t", "VAULT_SKIP_VERIFY=1"}})
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Vault != (Vault{}) {
			t.Errorf("vault = %+v", cfg.Vault)
		}
	})
	t.Run("VAULT_SKIP_VERIFY", func(t *testing.T) {
		for value, bad := range map[string]bool{"1": true, "true": true, "yes": true, "0": false, "false": false, "": false} {
			_, _, err := loadText(t, minimalVault, Options{Environ: []string{"VAULT_SKIP_VERIFY=" + value}})
			if (err != nil) != bad {
				t.Errorf("VAULT_SKIP_VERIFY=%q: %v", value, err)
			}
		}
	})
	t.Run("VAULT_TOKEN counts for method token", func(t *testing.T) {
		env := []string{"VAULT_TOKEN=hvs.canary"}
		cfg, _, err := loadText(t, minimalVault, Options{Environ: env})
		if err != nil || !cfg.Vault.Auth.Token.IsZero() {
			t.Errorf("approle: token set, %v", err)
		}
		text := edit(t, minimalVault, "{method: approle, role_id_file: /etc/role, secret_id_file: /etc/secret}", "{method: token}")
		cfg, _, err = loadText(t, text, Options{Environ: env})
		if err != nil || cfg.Vault.Auth.Token.Reveal() != "hvs.canary" {
			t.Errorf("token: %v", err)
		}
	})
	t.Run("credentials of systemd", func(t *testing.T) {
		text := edit(t, minimal, "/etc/keyturn/seal.key", "credential:seal")
		cfg, _, err := loadText(t, text, Options{Environ: []string{"CREDENTIALS_DIRECTORY=/run/credentials/keyturn"}})
		if err != nil || cfg.Local.KeyFile != "/run/credentials/keyturn/seal" {
			t.Errorf("Load = %v, key_file %q", err, cfg.Local.KeyFile)
		}
		text = edit(t, minimal, "/etc/keyturn/seal.key", "credential:../../etc/passwd")
		if _, _, err := loadText(t, text, Options{Environ: []string{"CREDENTIALS_DIRECTORY=/run/credentials/keyturn"}}); err == nil {
			t.Error("a credential outside the folder was taken")
		}
	})
}

func TestRelativePaths(t *testing.T) {
	text := edit(t, minimal, "/etc/keyturn/seal.key", "seal.key")
	text = edit(t, text, "/srv/jwks.json", "www/../jwks.json")
	text = edit(t, text, "/var/lib/keyturn", "state")
	cfg, _, err := loadText(t, text, Options{Environ: []string{"KEYTURN_AUDIT_FILE=audit.jsonl"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(cfg.File)
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got := []string{cfg.Local.KeyFile, cfg.Issuers[0].Publish[0].File, cfg.Local.Dir, cfg.Audit.File}
	want := []string{dir + "/seal.key", dir + "/jwks.json", dir + "/state/custody", wd + "/audit.jsonl"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

// Every scalar of the list reaches its own field and no other, and Vault's
// variables reach theirs.
func TestEveryScalar(t *testing.T) {
	for _, s := range scalars() {
		for _, env := range []string{s.env(), s.vault} {
			if env == "" {
				continue
			}
			cfg, src := new(Config), &source{overlaid: map[string]string{}}
			newOverlay(Options{Environ: []string{env + "=a=B c"}}).apply(cfg, src)
			if got := *s.field(cfg); got != "a=B c" || src.overlaid[s.path] != env {
				t.Errorf("%s: %s = %q, from %q", env, s.path, got, src.overlaid[s.path])
			}
			*s.field(cfg) = ""
			if diff := cmp.Diff(new(Config), cfg); diff != "" {
				t.Errorf("%s sets more than %s:\n%s", env, s.path, diff)
			}
		}
	}
}

// TestVariablesThatNothingReads: a setting that the environment does not have is
// told so, and not taken for another program's.
func TestVariablesThatNothingReads(t *testing.T) {
	for env, want := range map[string]string{
		"KEYTURN_SYNC_INTERVAL":       "KEYTURN_SYNC_INTERVAL is ignored: sync_interval is set in the file alone",
		"KEYTURN_AUDIT_REQUIRED":      "KEYTURN_AUDIT_REQUIRED is ignored: audit.required is set in the file alone",
		"KEYTURN_PROFILES":            "KEYTURN_PROFILES is ignored: profiles is set in the file alone",
		"KEYTURN_VAULT_AUTH_TOKEN":    "KEYTURN_VAULT_AUTH_TOKEN is ignored: a secret never stands in this file: leave the token in VAULT_TOKEN",
		"KEYTURN_STOER":               "KEYTURN_STOER is not a setting of keyturn and is ignored: is it KEYTURN_STORE?",
		"KEYTURN_SERVICE_PORT_STATUS": "KEYTURN_SERVICE_PORT_STATUS is not a setting of keyturn and is ignored (Kubernetes sets such",
	} {
		_, warnings, err := loadText(t, minimal, Options{Environ: []string{env + "=x"}})
		if err != nil || len(warnings) != 1 || !strings.HasPrefix(string(warnings[0]), want) {
			t.Errorf("%s: %q, %v, want %q", env, warnings, err, want)
		}
	}
}

// TestDocsNameEveryVariable: the page's table is the list, with the flags and Vault's variables.
func TestDocsNameEveryVariable(t *testing.T) {
	doc, err := os.ReadFile("../docs/configuration.md")
	must(t, err)
	_, table, _ := strings.Cut(string(doc), "\n## The environment\n")
	code := func(text string) string {
		if text == "" {
			return ""
		}
		return "`" + text + "`"
	}
	rows := 0
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "| `KEYTURN_") {
			rows++
		}
	}
	if want := len(scalars()) + 1; rows != want {
		t.Errorf("%d variables, want %d", rows, want)
	}
	for _, s := range scalars() {
		flag, vault := "", ""
		if s.flag != "" {
			flag = code("--" + s.flag)
		}
		if s.vault != "" {
			vault = code(s.vault) + ", with `store: vault`"
		}
		row := strings.ReplaceAll("| "+code(s.env())+" | "+code(s.path)+" | "+flag+" | "+vault+" |\n", "|  |", "| |")
		row = strings.ReplaceAll(row, "|  |", "| |")
		if !strings.Contains(table, row) {
			t.Errorf("docs/configuration.md has no row %q", row)
		}
	}
}
