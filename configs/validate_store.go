package configs

import (
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/configs/internal/syntax"
)

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
	v.check("vault.mount", syntax.Mount(vt.Mount))
	v.auth()
}

// vaultAddress allows plain http on this machine only: private keys go over it.
func (v *validator) vaultAddress(address string) {
	u, err := url.Parse(address)
	if err == nil && v.dev && u.Scheme == "http" && u.Hostname() != "" && !syntax.Loopback(u.Hostname()) {
		v.warn("vault.address is %s: private keys go over plain HTTP; run refuses that, dev does not", syntax.ShownURL(address))
		v.cfg.Vault.Insecure = true
		return
	}
	if _, err := syntax.WebURL(address); err != nil {
		v.fault("vault.address", "%q: %v", syntax.ShownURL(address), err)
		return
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		v.fault("vault.address", "%q: give scheme, host and port only; the mount has its own setting", syntax.ShownURL(address))
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
		v.check(path+".mount", syntax.Mount(a.Mount))
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
