package configs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// validator fills and judges one configuration, and keeps all it finds.
type validator struct {
	cfg      *Config
	src      *source
	over     *overlay
	dev      bool
	faults   Faults
	warnings []Warning
}

// at is the path of a list's item.
func at(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

func (v *validator) fault(path, format string, args ...any) {
	v.faults = append(v.faults, v.src.fault(path, format, args...))
}

// follows notes a fault that is most likely the echo of another one, where
// there is another one.
func (v *validator) follows(path, format string, args ...any) {
	f := v.src.fault(path, format, args...)
	f.follows = true
	v.faults = append(v.faults, f)
}

// need reports a setting that is missing, and says what it is for.
func (v *validator) need(path, value, purpose string) bool {
	if value == "" {
		v.follows(path, "is missing: %s", purpose)
	}
	return value != ""
}

func (v *validator) warn(format string, args ...any) {
	v.warnings = append(v.warnings, Warning(fmt.Sprintf(format, args...)))
}

// oneOf reports a value that is not in a list.
func (v *validator) oneOf(path, value string, allowed ...string) bool {
	if why := notBuiltValues[index.ReplaceAllString(path, "[]")][value]; why != "" {
		v.fault(path, "%q is not built yet: %s", value, why)
		return false
	}
	if !slices.Contains(allowed, value) {
		v.fault(path, "%q is unknown: use %s", value, strings.Join(allowed, ", "))
		return false
	}
	return true
}

var nameSyntax = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// names checks the names of a list, and that none appears twice.
func (v *validator) names(list string, count int, nameOf func(int) string) {
	first := map[string]int{}
	for i := range count {
		path, name := at(list, i)+".name", nameOf(i)
		if !v.need(path, name, "it is what others refer to, and a part of paths") {
			continue
		}
		if !nameSyntax.MatchString(name) {
			v.fault(path, "%q: names are 1 to 63 characters of a-z, 0-9 and -, without - at either end (they become segments of Vault's paths)", name)
		}
		if j, taken := first[name]; taken {
			v.fault(path, "%q is the name of %s as well: choose another", name, at(list, j))
			continue
		}
		first[name] = i
	}
}

func (v *validator) validate() {
	c := v.cfg
	v.oneOf("store", c.Store, StoreVault, StoreLocal)
	v.need("state_dir", c.StateDir, "the folder in which the last seen state survives a restart, such as /var/lib/keyturn")
	v.roles()
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "json", "text")
	switch c.Store {
	case StoreVault:
		v.vault()
		if v.src.lines["local"] > 0 {
			v.warn("local is not used with store: %s", StoreVault)
		}
	case StoreLocal:
		v.local()
		if v.src.lines["vault"] > 0 {
			v.warn("vault is not used with store: %s", StoreLocal)
		}
	}
	v.listen()
	v.issuers()
	v.rings()
	v.profiles()
	v.served()
	v.hardening()
	if c.Has(Signer) || c.Has(Rotator) {
		v.need("audit.file", c.Audit.File, "every decision is written there before a token is released, such as /var/log/keyturn/audit.jsonl")
	}
	v.anchors()
}

var replicaSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// anchors checks where the audit log's heads are kept.
func (v *validator) anchors() {
	c := v.cfg
	if v.need("replica", c.Replica, "the name of this daemon, under which its audit log is anchored; the host's name will not do") && !replicaSyntax.MatchString(c.Replica) {
		v.fault("replica", "%q: write 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or a digit (it becomes a segment of Vault's paths)", c.Replica)
	}
	if c.Audit.AnchorInterval < Duration(time.Second) {
		v.fault("audit.anchor_interval", "%s: at least 1s", c.Audit.AnchorInterval)
	}
}

func (v *validator) roles() {
	c := v.cfg
	for i, r := range c.Roles {
		path := at("roles", i)
		v.oneOf(path, string(r), string(Rotator), string(Signer), string(Publisher))
		if slices.Index(c.Roles, r) < i {
			v.fault(path, "%q appears twice", r)
		}
	}
	switch {
	case len(c.Roles) == 0:
		v.fault("roles", "is empty: a daemon without a role does nothing; take it out for all of them")
	case c.Store == StoreLocal && !(c.Has(Rotator) && c.Has(Signer) && c.Has(Publisher)):
		v.fault("roles", "store local serves one process alone, so that process has all roles: take roles out, or use store vault")
	}
}

func (v *validator) local() {
	c := v.cfg
	v.need("local.key_file", c.Local.KeyFile, "the file of the key that seals the private halves: (umask 077; openssl rand -base64 32 > FILE)")
	if c.Local.KeyFile != "" && c.Local.Dir != "" && strings.HasPrefix(c.Local.KeyFile, c.Local.Dir+"/") {
		v.warn("local.key_file lies in local.dir: a copy of that folder is a copy of the private keys; keep the two apart")
	}
}

// vault checks how to reach the server and how to log in. Whether it answers
// is not for a file to tell.
func (v *validator) vault() {
	vt := v.cfg.Vault
	if v.need("vault.address", vt.Address, "the URL of the Vault server, such as https://vault.example:8200") {
		v.vaultAddress(vt.Address)
	}
	if v.over.skipsVerification() && !v.dev {
		v.fault("vault.address", "VAULT_SKIP_VERIFY is set, and private keys would go to whoever answers: unset it, and name the authority's certificate in vault.ca_cert_file or VAULT_CACERT")
	}
	if v.over.skipsVerification() && v.dev {
		v.warn("VAULT_SKIP_VERIFY is not heeded: certificates are verified all the same; VAULT_CACERT names the authority's")
	}
	v.mount("vault.mount", vt.Mount)
	v.auth()
}

var mountSyntax = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)

func (v *validator) mount(path, mount string) {
	if !mountSyntax.MatchString(mount) || slices.ContainsFunc(strings.Split(mount, "/"), func(s string) bool { return s == "." || s == ".." }) {
		v.fault(path, "%q is no mount path: write it as Vault lists it, without a slash at either end", mount)
	}
}

func (v *validator) auth() {
	a := v.cfg.Vault.Auth
	const path = "vault.auth"
	if !v.need(path+".method", a.Method, "how to log in: approle, token_file or token") ||
		!v.oneOf(path+".method", a.Method, AuthAppRole, AuthTokenFile, AuthToken) {
		return
	}
	unused := func(field, value, method string) {
		if value != "" && a.Method != method {
			v.fault(path+"."+field, "belongs to method %s, and the method is %s: take it out", method, a.Method)
		}
	}
	unused("mount", a.Mount, AuthAppRole)
	unused("role_id_file", a.RoleIDFile, AuthAppRole)
	unused("secret_id_file", a.SecretIDFile, AuthAppRole)
	unused("token_file", a.TokenFile, AuthTokenFile)
	switch a.Method {
	case AuthAppRole:
		v.mount(path+".mount", a.Mount)
		v.need(path+".role_id_file", a.RoleIDFile, "the file with the role id (vault read auth/approle/role/NAME/role-id)")
		v.need(path+".secret_id_file", a.SecretIDFile, "the file with a secret id (vault write -f auth/approle/role/NAME/secret-id)")
	case AuthTokenFile:
		v.need(path+".token_file", a.TokenFile, "the file with the token")
	case AuthToken:
		if a.Token.IsZero() {
			v.fault(path+".method", "is token, and VAULT_TOKEN is not set: set it, or use approle or token_file")
		}
	}
}
