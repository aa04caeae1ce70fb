package deploytest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/daemon"
	"github.com/keyturn/keyturn/configs"
)

// root is the top of the tree, seen from this package.
const root = "../../../.."

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// load reads a configuration as the daemon does, with systemd's credentials
// where its unit would put them.
func load(t *testing.T, path string) *configs.Config {
	t.Helper()
	cfg, warnings, err := configs.Load(configs.Options{Environ: []string{
		"KEYTURN_CONFIG=" + filepath.Join(root, path),
		"CREDENTIALS_DIRECTORY=/run/credentials/keyturn.service",
	}})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(warnings) > 0 {
		t.Errorf("%s: %v", path, warnings)
	}
	return cfg
}

// files lists the paths of a configuration that must exist or be made where it
// runs.
func files(c *configs.Config) []string {
	paths := []string{c.StateDir, c.Listen.Admin.Path, c.Audit.File, c.Vault.CACertFile, c.Vault.Auth.RoleIDFile,
		c.Vault.Auth.SecretIDFile, c.Listen.Public.TLS.CertFile, c.Listen.Public.TLS.KeyFile}
	for _, s := range c.Listen.Sign {
		paths = append(paths, s.Path)
	}
	for _, i := range c.Issuers {
		for _, target := range i.Publish {
			paths = append(paths, target.File)
		}
	}
	var out []string
	for _, p := range paths {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

func under(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// TestCheckElsewhere: the shipped files pass `keyturn config check` on a host
// that has none of the certificates, credentials and folders that they name.
func TestCheckElsewhere(t *testing.T) {
	for _, file := range []string{"deploy/kubernetes/keyturn.yaml", "deploy/systemd/keyturn.yaml", "configs/keyturn.yaml"} {
		report, err := daemon.Check(load(t, file))
		if err != nil {
			t.Errorf("%s: %v", file, err)
		} else if len(report.Timelines) == 0 {
			t.Errorf("%s: no timeline", file)
		}
	}
}
