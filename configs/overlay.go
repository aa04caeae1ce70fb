package configs

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/keyturn/keyturn/configs/strictyaml"
)

// scalar is one setting that flags and the environment may overlay.
type scalar struct {
	path  string // of the field; also its key in viper
	flag  string // without dashes; "" for none
	usage string // of the flag
	vault string // the variable of Vault's own tools that counts as well
	field func(*Config) *string
}

// env is the setting's variable: vault.address is KEYTURN_VAULT_ADDRESS.
func (s scalar) env() string { return envOf(s.path) }

func envOf(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

const envPrefix = "KEYTURN_"

// scalars is the whole list. What replicas must agree on is not in it.
func scalars() []scalar {
	return []scalar{
		{path: "store", field: func(c *Config) *string { return &c.Store }},
		{path: "state_dir", flag: "state-dir", usage: "folder of the high-water mark and the last public snapshot", field: func(c *Config) *string { return &c.StateDir }},
		{path: "replica", field: func(c *Config) *string { return &c.Replica }},
		{path: "log.level", flag: "log-level", usage: "debug, info, warn or error", field: func(c *Config) *string { return &c.Log.Level }},
		{path: "log.format", flag: "log-format", usage: "json or text", field: func(c *Config) *string { return &c.Log.Format }},
		{path: "vault.address", flag: "vault-address", usage: "URL of the Vault server", vault: "VAULT_ADDR", field: func(c *Config) *string { return &c.Vault.Address }},
		{path: "vault.namespace", vault: "VAULT_NAMESPACE", field: func(c *Config) *string { return &c.Vault.Namespace }},
		{path: "vault.ca_cert_file", vault: "VAULT_CACERT", field: func(c *Config) *string { return &c.Vault.CACertFile }},
		{path: "vault.mount", field: func(c *Config) *string { return &c.Vault.Mount }},
		{path: "vault.auth.method", field: func(c *Config) *string { return &c.Vault.Auth.Method }},
		{path: "vault.auth.mount", field: func(c *Config) *string { return &c.Vault.Auth.Mount }},
		{path: "vault.auth.role_id_file", field: func(c *Config) *string { return &c.Vault.Auth.RoleIDFile }},
		{path: "vault.auth.secret_id_file", field: func(c *Config) *string { return &c.Vault.Auth.SecretIDFile }},
		{path: "vault.auth.token_file", field: func(c *Config) *string { return &c.Vault.Auth.TokenFile }},
		{path: "local.dir", field: func(c *Config) *string { return &c.Local.Dir }},
		{path: "local.key_file", field: func(c *Config) *string { return &c.Local.KeyFile }},
		{path: "listen.admin.path", field: func(c *Config) *string { return &c.Listen.Admin.Path }},
		{path: "listen.public.addr", flag: "public-addr", usage: "host:port that serves the key sets", field: func(c *Config) *string { return &c.Listen.Public.Addr }},
		{path: "listen.status.addr", flag: "status-addr", usage: "host:port of health and metrics, or off", field: func(c *Config) *string { return &c.Listen.Status.Addr }},
		{path: "hardening.landlock", field: func(c *Config) *string { return &c.Hardening.Landlock }},
		{path: "audit.file", field: func(c *Config) *string { return &c.Audit.File }},
	}
}

// elsewhere are the KEYTURN_* that other parts of keyturn read.
func elsewhere() []string {
	return []string{envPrefix + "CONFIG", envPrefix + "SOCKET", envPrefix + "ADMIN_SOCKET"}
}

// configFlag names the file.
const configFlag = "config"

// Flags registers --config and the flags that overlay the file.
func Flags(fs *pflag.FlagSet) {
	fs.String(configFlag, "", "the configuration, a YAML file (default "+DefaultFile+", or KEYTURN_CONFIG)")
	for _, s := range scalars() {
		if s.flag != "" {
			fs.String(s.flag, "", s.usage+"; in the file "+s.path)
		}
	}
}

// overlay decides, through viper, which of a flag, KEYTURN_* and VAULT_* counts.
type overlay struct {
	v     *viper.Viper
	flags *pflag.FlagSet
	env   map[string]string
}

// newOverlay fills viper's layers: flags as flags, KEYTURN_* as its
// configuration and VAULT_* as its defaults. The environment is handed in and
// not read by viper, so that nothing but the fixed list ever counts.
func newOverlay(o Options) *overlay {
	ov := &overlay{v: viper.NewWithOptions(viper.KeyDelimiter("\x00")), flags: o.Flags, env: map[string]string{}}
	for _, entry := range o.Environ {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			ov.env[name] = value
		}
	}
	ours := map[string]any{}
	bind := func(key, flag, env, vault string) {
		if f := ov.lookup(flag); f != nil {
			_ = ov.v.BindPFlag(key, f) // fails for a nil flag only
		}
		if value, ok := ov.env[env]; ok {
			ours[key] = value
		}
		if value, ok := ov.env[vault]; ok {
			ov.v.SetDefault(key, value)
		}
	}
	bind(configFlag, configFlag, envPrefix+"CONFIG", "")
	for _, s := range scalars() {
		bind(s.path, s.flag, s.env(), s.vault)
	}
	_ = ov.v.MergeConfigMap(ours) // has no failing path
	return ov
}

func (ov *overlay) lookup(flag string) *pflag.Flag {
	if ov.flags == nil || flag == "" {
		return nil
	}
	return ov.flags.Lookup(flag)
}

// file is the configuration's place.
func (ov *overlay) file() string {
	if !ov.v.IsSet(configFlag) {
		return DefaultFile
	}
	return ov.v.GetString(configFlag)
}

// origin names what set a scalar, as a user would write it.
func (ov *overlay) origin(s scalar) string {
	if f := ov.lookup(s.flag); f != nil && f.Changed {
		return "--" + s.flag
	}
	if _, ok := ov.env[s.env()]; ok {
		return s.env()
	}
	return s.vault
}

// apply lays the scalars over the file, in the order of the list: the store
// first, because VAULT_* say nothing to one that is local.
func (ov *overlay) apply(cfg *Config, src *source) {
	for _, s := range scalars() {
		if !ov.v.IsSet(s.path) {
			continue
		}
		origin := ov.origin(s)
		if origin == s.vault && cfg.Store == StoreLocal {
			continue
		}
		*s.field(cfg) = ov.v.GetString(s.path)
		src.overlaid[s.path] = origin
	}
	if cfg.Vault.Auth.Method == AuthToken {
		cfg.Vault.Auth.Token = strictyaml.NewSecret(ov.env["VAULT_TOKEN"])
	}
}

// skipsVerification reports that the environment asks Vault's tools not to
// verify certificates.
func (ov *overlay) skipsVerification() bool {
	switch strings.ToLower(ov.env["VAULT_SKIP_VERIFY"]) {
	case "", "0", "f", "false":
		return false
	}
	return true
}

// warnings names the KEYTURN_* that nothing reads.
func (ov *overlay) warnings() []Warning {
	known := elsewhere()
	for _, s := range scalars() {
		known = append(known, s.env())
	}
	var names []string
	for name := range ov.env {
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []Warning
	for _, name := range names {
		text := name + " is not a setting of keyturn and is ignored"
		if path := settingOf(name); path != "" {
			text = name + " is ignored: " + path + " is set in the file alone"
			if why := refused[path]; why != "" {
				text = name + " is ignored: " + why
			}
		} else if near := nearestEnv(name, known); near != "" {
			text += ": is it " + near + "?"
		} else {
			text += " (Kubernetes sets such for a Service named keyturn: enableServiceLinks: false keeps them out)"
		}
		out = append(out, Warning(text))
	}
	return out
}

// settingOf is the setting whose variable this would be, if it had one.
func settingOf(env string) string {
	for _, path := range strictyaml.Settings[Config]() {
		if envOf(path) == env {
			return path
		}
	}
	return ""
}

func nearestEnv(name string, known []string) string {
	lower := make([]string, len(known))
	for i, k := range known {
		lower[i] = strings.ToLower(k)
	}
	return strings.ToUpper(strictyaml.Nearest(name, lower))
}

// ParseDuration reads the duration of a flag as the file writes it: 90d, 1h30m.
func ParseDuration(s string) (strictyaml.Duration, error) { return strictyaml.ParseDuration(s) }
