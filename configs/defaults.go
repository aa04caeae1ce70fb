package configs

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/configs/internal/syntax"
	"github.com/keyturn/keyturn/configs/strictyaml"
	"github.com/keyturn/keyturn/keyring"
)

// Defaults that other places name.
const (
	DefaultSignSocket  = "/run/keyturn/sign.sock"
	DefaultAdminSocket = "/run/keyturn/admin.sock"
	DefaultStatusAddr  = "127.0.0.1:9464"
)

// fill gives a field its default where nothing is written.
func fill[T comparable](field *T, value T) {
	var none T
	if *field == none {
		*field = value
	}
}

// defaults fills what the file and the overlay leave out. Paths are absolute
// by now.
func (v *validator) defaults() {
	c := v.cfg
	fill(&c.Store, StoreVault)
	if !v.src.given("roles") {
		c.Roles = Roles()
	}
	if host, err := os.Hostname(); err == nil && syntax.Replica(host) == nil {
		fill(&c.Replica, host)
	}
	fill(&c.SyncInterval, strictyaml.Duration(10*time.Second))
	if !v.src.given("watch") {
		c.Watch = true
	}
	fill(&c.Log.Level, "info")
	fill(&c.Log.Format, "json")
	switch c.Store {
	case StoreVault:
		fill(&c.Vault.Mount, "keyturn")
		fill(&c.Vault.Timeout, strictyaml.Duration(5*time.Second))
		if c.Vault.Auth.Method == AuthAppRole {
			fill(&c.Vault.Auth.Mount, "approle")
		}
	case StoreLocal:
		if c.StateDir != "" {
			fill(&c.Local.Dir, filepath.Join(c.StateDir, "custody"))
		}
	}
	v.defaultSockets()
	fill(&c.Listen.Status.Addr, DefaultStatusAddr)
	fill(&c.Hardening.Landlock, LandlockAuto)
	if !v.src.given("audit.required") {
		c.Audit.Required = true
	}
	fill(&c.Audit.AnchorInterval, strictyaml.Duration(time.Minute))
	for i := range c.Issuers {
		v.defaultIssuer(&c.Issuers[i], at("issuers", i))
	}
	for i := range c.Rings {
		v.defaultRing(&c.Rings[i], at("rings", i))
	}
	for i := range c.Profiles {
		v.defaultProfile(&c.Profiles[i], at("profiles", i))
	}
}

func (v *validator) defaultSockets() {
	l := &v.cfg.Listen
	if v.cfg.Has(Signer) && !v.src.given("listen.sign") {
		l.Sign = []SignSocket{{Name: "default", Path: DefaultSignSocket}}
	}
	for i := range l.Sign {
		fill(&l.Sign[i].Mode, "0660")
		if !v.src.given(at("listen.sign", i) + ".connections_per_user") {
			l.Sign[i].ConnectionsPerUser = 64
		}
	}
	fill(&l.Admin.Path, DefaultAdminSocket)
	fill(&l.Admin.Mode, "0600")
}

func (v *validator) defaultIssuer(i *Issuer, path string) {
	fill(&i.ConsumerCache, strictyaml.Duration(15*time.Minute))
	fill(&i.JWKSMaxAge, strictyaml.Duration(5*time.Minute))
	fill(&i.Leeway, strictyaml.Duration(time.Minute))
	fill(&i.ClockSkew, strictyaml.Duration(10*time.Second))
	if !v.src.given(path + ".max_keys") {
		i.MaxKeys = keyring.DefaultMaxKeys
	}
	for j := range i.Publish {
		t, where := &i.Publish[j], at(path+".publish", j)
		if !v.src.given(where + ".required") {
			t.Required = true
		}
		if t.HTTP && !v.src.given(where+".path") {
			t.Path = i.JWKSPath()
		}
	}
}

func (v *validator) defaultRing(r *Ring, path string) {
	custody := CustodyVaultKV
	if v.cfg.Store == StoreLocal {
		custody = CustodyLocal
	}
	fill(&r.Custody, custody)
	if r.Algorithm.IsRSA() && !v.src.given(path+".rsa_bits") {
		r.RSABits = 3072
	}
	fill(&r.MaxTokenTTL, strictyaml.Duration(time.Hour))
}

func (v *validator) defaultProfile(p *Profile, path string) {
	for i := range p.Claims.Add {
		// yaml hands no null to an unmarshaller
		if claim := &p.Claims.Add[i]; claim.Value == nil && v.src.given(at(path+".claims.add", i)+".value") {
			claim.Value = strictyaml.JSON("null")
		}
	}
	fill(&p.Typ, "JWT")
	if !v.src.given(path + ".rate.burst") {
		p.Rate.Burst = p.Rate.PerSecond
	}
	if ring, ok := v.cfg.Ring(p.Ring); ok {
		fill(&p.TTL.Max, ring.MaxTokenTTL)
	}
	if p.TTL.Max > 0 {
		fill(&p.TTL.Default, min(p.TTL.Max, strictyaml.Duration(5*time.Minute)))
	}
}

const credentialPrefix = "credential:"

// paths makes every path absolute and puts systemd's credentials in place.
func (v *validator) paths() {
	c := v.cfg
	files := map[string]*string{
		"state_dir": &c.StateDir, "vault.ca_cert_file": &c.Vault.CACertFile, "local.dir": &c.Local.Dir,
		"listen.admin.path": &c.Listen.Admin.Path, "audit.file": &c.Audit.File,
	}
	secrets := map[string]*string{
		"vault.auth.role_id_file": &c.Vault.Auth.RoleIDFile, "vault.auth.secret_id_file": &c.Vault.Auth.SecretIDFile,
		"vault.auth.token_file": &c.Vault.Auth.TokenFile, "local.key_file": &c.Local.KeyFile,
		"listen.public.tls.cert_file": &c.Listen.Public.TLS.CertFile, "listen.public.tls.key_file": &c.Listen.Public.TLS.KeyFile,
	}
	for i := range c.Listen.Sign {
		files[at("listen.sign", i)+".path"] = &c.Listen.Sign[i].Path
	}
	for i := range c.Issuers {
		for j := range c.Issuers[i].Publish {
			files[at(at("issuers", i)+".publish", j)+".file"] = &c.Issuers[i].Publish[j].File
		}
	}
	for path, file := range secrets {
		name, isCredential := strings.CutPrefix(*file, credentialPrefix)
		switch dir := v.over.env["CREDENTIALS_DIRECTORY"]; {
		case syntax.IsContent(*file):
			v.fault(path, "looks like what should be in the file: %swrite it to one that the daemon alone can read, and name that", secretInline)
		case !isCredential:
			files[path] = file
		case dir == "":
			v.fault(path, "%s is handed over by systemd, and this process got none: start it from a unit with LoadCredential=%s:…, or name a file", *file, name)
		case !filepath.IsLocal(name) || strings.Contains(name, "/"):
			v.fault(path, "%q is no name of a credential", name)
		default:
			*file = filepath.Join(dir, name)
		}
	}
	for path, file := range files {
		v.absolute(path, file)
	}
}

func (v *validator) absolute(path string, file *string) {
	if *file == "" {
		return
	}
	base := filepath.Dir(v.cfg.File)
	if v.src.overlaid[path] != "" {
		base = "."
	}
	abs, err := absolute(base, *file)
	switch {
	case err != nil:
		v.fault(path, "%v", err)
	case strings.ContainsRune(*file, 0):
		v.fault(path, "%q is no path", *file)
	case strings.HasSuffix(*file, "/") && !strings.HasSuffix(path, "dir"):
		v.fault(path, "%s is a folder: name a file in it", *file)
	default:
		*file = abs
	}
}
