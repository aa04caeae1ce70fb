package configs

import (
	"path/filepath"
	"strings"
)

// place is a path at which keyturn writes, listens or reads.
type place struct {
	setting string // that says it; "" for the configuration itself
	file    string
	beside  string // what is made there beside the setting's own file; "" for that itself
	written bool
}

func (p place) String() string {
	switch {
	case p.setting == "":
		return "the configuration itself"
	case p.beside != "":
		return p.beside + " of " + p.setting
	}
	return p.setting
}

// collisions refuses a path that is written and has another use as well: the
// audit log would be appended to the key that seals the private halves. Links are
// not followed.
func (v *validator) collisions() {
	all, told := v.places(), map[string]bool{}
	for i, p := range all {
		for _, other := range all[:i] {
			if p.file != other.file || p.setting == other.setting || told[p.setting] || !p.written && !other.written {
				continue
			}
			told[p.setting] = true // one is enough: what stands beside its file collides as well
			if p.beside != "" {
				v.fault(p.setting, "%s, %s, is %s as well: choose another", p.file, p.beside, other)
			} else {
				v.fault(p.setting, "%s is %s as well: choose another", p.file, other)
			}
		}
	}
	if c := v.cfg; c.Store == StoreLocal && strings.HasPrefix(c.StateDir, c.Local.Dir+"/") && c.Local.Dir != "" {
		v.fault("state_dir", "%s lies in local.dir, which holds the private halves and nothing else: choose a folder beside it", c.StateDir)
	}
}

// places lists what is in use: what is read first, so that a fault is told of what
// is written over it.
func (v *validator) places() (out []place) {
	c := v.cfg
	add := func(p place) {
		if p.file != "" {
			out = append(out, p)
		}
	}
	reads := func(setting, file string) { add(place{setting: setting, file: file}) }
	writes := func(setting, file string, beside ...place) {
		if file == "" {
			return
		}
		add(place{setting: setting, file: file, written: true})
		for _, b := range beside {
			b.setting, b.written = setting, true
			add(b)
		}
	}
	if file, err := filepath.Abs(c.File); err == nil {
		reads("", file)
	}
	switch c.Store {
	case StoreLocal:
		reads("local.key_file", c.Local.KeyFile)
	case StoreVault:
		reads("vault.ca_cert_file", c.Vault.CACertFile)
		reads("vault.auth.role_id_file", c.Vault.Auth.RoleIDFile)
		reads("vault.auth.secret_id_file", c.Vault.Auth.SecretIDFile)
		reads("vault.auth.token_file", c.Vault.Auth.TokenFile)
	}
	reads("listen.public.tls.cert_file", c.Listen.Public.TLS.CertFile)
	reads("listen.public.tls.key_file", c.Listen.Public.TLS.KeyFile)
	writes("state_dir", c.StateDir)
	if c.Store == StoreLocal {
		writes("local.dir", c.Local.Dir)
	}
	socket := func(setting, file string) {
		writes(setting, file, place{file: filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".lock"), beside: "the lock"})
	}
	for i, s := range c.Listen.Sign {
		socket(at("listen.sign", i)+".path", s.Path)
	}
	socket("listen.admin.path", c.Listen.Admin.Path)
	for i, is := range c.Issuers {
		for j, t := range is.Publish {
			const side = ".keyturn"
			writes(at(at("issuers", i)+".publish", j)+".file", t.File,
				place{file: t.File + side, beside: "the side file"}, place{file: t.File + side + ".lock", beside: "the lock"})
		}
	}
	writes("audit.file", c.Audit.File, place{file: c.Audit.File + ".lock", beside: "the lock"})
	return out
}
