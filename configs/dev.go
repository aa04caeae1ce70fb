package configs

import (
	_ "embed"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/configs/internal/syntax"
)

//go:embed dev.yaml
var devYAML string

//go:embed dev-vault.yaml
var devVaultYAML string

// DevOptions describe a try-out.
type DevOptions struct {
	// Dir holds all that it writes. Required.
	Dir string
	// Vault puts the private halves into the Vault that VAULT_ADDR and
	// VAULT_TOKEN name.
	Vault bool
	// UID may use the profile.
	UID uint32
	// Options overlay addresses, the log and Vault's place.
	Options Options
}

// Dev is the configuration of a try-out: dev.yaml, or dev-vault.yaml, as if it
// lay in Dir. A KEYTURN_* that is set for a daemon on this host must not lead
// the try-out into that daemon's folders, so only those of the log count.
func Dev(o DevOptions) (*Config, []Warning, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, nil, fmt.Errorf("folder of the try-out: %w", err)
	}
	doc, name := devYAML, "dev.yaml"
	if o.Vault {
		doc, name = devVaultYAML, "dev-vault.yaml"
	}
	opts := o.Options
	opts.Dev = true
	opts.Environ = slices.DeleteFunc(slices.Clone(opts.Environ), func(entry string) bool {
		return strings.HasPrefix(entry, envPrefix) && !strings.HasPrefix(entry, envPrefix+"LOG_")
	})
	cfg, warnings, err := parse([]byte(doc), filepath.Join(dir, name), newOverlay(opts), opts)
	if err != nil {
		return nil, nil, err
	}
	followAddr(cfg)
	// A try-out in another folder has another log, which is anchored elsewhere.
	if name := filepath.Base(dir); syntax.Replica(name) == nil {
		cfg.Replica = name
	}
	for i := range cfg.Profiles {
		for j := range cfg.Profiles[i].Allow {
			cfg.Profiles[i].Allow[j].UID = &o.UID
		}
	}
	return cfg, warnings, nil
}

// followAddr keeps the issuer's URL where the set is served, so that discovery
// holds on another address, too. Port 0 is not known before it is listened on.
func followAddr(cfg *Config) {
	host, port, err := net.SplitHostPort(cfg.Listen.Public.Addr)
	if err != nil || port == "0" {
		return
	}
	if !syntax.Loopback(host) {
		host = "127.0.0.1"
	}
	for i := range cfg.Issuers {
		cfg.Issuers[i].URL = "http://" + net.JoinHostPort(host, port)
	}
}
