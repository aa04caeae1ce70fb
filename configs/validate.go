package configs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/configs/internal/syntax"
	"github.com/keyturn/keyturn/configs/strictyaml"
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

// check notes what is wrong with a field; nil is nothing.
func (v *validator) check(path string, err error) {
	if err != nil {
		v.fault(path, "%v", err)
	}
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
	if why := notBuiltValues[strictyaml.Pattern(path)][value]; why != "" {
		v.fault(path, "%q is not built yet: %s", value, why)
		return false
	}
	if !slices.Contains(allowed, value) {
		v.fault(path, "%q is unknown: use %s", value, strings.Join(allowed, ", "))
		return false
	}
	return true
}

// names checks the names of a list, and that none appears twice.
func (v *validator) names(list string, count int, nameOf func(int) string) {
	first := map[string]int{}
	for i := range count {
		path, name := at(list, i)+".name", nameOf(i)
		if !v.need(path, name, "it is what others refer to, and a part of paths") {
			continue
		}
		v.check(path, syntax.Name(name))
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
	v.collisions()
}

// anchors checks where the audit log's heads are kept.
func (v *validator) anchors() {
	c := v.cfg
	if v.need("replica", c.Replica, "the name of this daemon, under which its audit log is anchored; the host's name will not do") {
		v.check("replica", syntax.Replica(c.Replica))
	}
	if c.Audit.AnchorInterval < strictyaml.Duration(time.Second) {
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
