package configs

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/configs/internal/syntax"
	"github.com/keyturn/keyturn/configs/strictyaml"
	"github.com/keyturn/keyturn/keyring"
)

func (v *validator) issuers() {
	c := v.cfg
	if len(c.Issuers) == 0 {
		v.follows("issuers", "is missing: name at least one issuer, with its url")
	}
	v.names("issuers", len(c.Issuers), func(i int) string { return c.Issuers[i].Name })
	urls := map[string]string{}
	for i := range c.Issuers {
		is, where := &c.Issuers[i], at("issuers", i)
		if is.Revision < 1 {
			v.follows(where+".revision", "is %d: begin with 1 and raise it with every change of this issuer, its rings or its targets", is.Revision)
		}
		if v.need(where+".url", is.URL, "it becomes iss in every token, such as https://tokens.example.com") {
			if err := syntax.IssuerURL(is.URL); err != nil {
				v.fault(where+".url", "%q: %v", syntax.ShownURL(is.URL), err)
			}
			if other := urls[is.URL]; other != "" {
				v.fault(where+".url", "%s is the URL of %s as well: an issuer has one key set", is.URL, other)
			}
			urls[is.URL] = where
		}
		v.wholeSeconds(where+".jwks_max_age", is.JWKSMaxAge)
		if is.MaxKeys < 1 {
			v.fault(where+".max_keys", "is %d: take it out for %d", is.MaxKeys, keyring.DefaultMaxKeys)
		}
		v.publish(is, where)
		v.confirm(is, where)
	}
}

func (v *validator) publish(is *Issuer, where string) {
	list := where + ".publish"
	v.names(list, len(is.Publish), func(j int) string { return is.Publish[j].Name })
	for j, t := range is.Publish {
		p := at(list, j)
		switch {
		case t.File == "" && !t.HTTP && v.src.given(p+".http"):
			v.fault(p+".http", "is false: write http: true, or file: …")
		case t.File == "" && !t.HTTP:
			v.follows(p, "says nothing about where: write file: PATH or http: true")
		case t.File != "" && t.HTTP:
			v.fault(p, "has both file and http: make two targets of it")
		}
		if !t.HTTP && v.src.given(p+".path") {
			v.fault(p+".path", "belongs to http: true; a file is named by file")
		}
		if t.HTTP && t.Path != "" {
			v.check(p+".path", syntax.HTTPPath(t.Path))
		}
		v.check(p+".view", t.View.Check())
		v.adoptUntil(t, p+".adopt_until")
	}
}

func (v *validator) adoptUntil(t Target, where string) {
	switch at := t.AdoptUntil.Time(); {
	case at.IsZero():
	case t.HTTP:
		v.fault(where, "belongs to a file: what http: true serves is keyturn's own")
	case !time.Now().Before(at):
		v.warn("%s: %s has passed: no key is taken over any more; take it out, and raise the revision", where, t.AdoptUntil)
	}
}

func (v *validator) confirm(is *Issuer, where string) {
	for j, raw := range is.Confirm {
		p := at(where+".confirm", j)
		// The URL is the target's name, a metric's label and a line of the log.
		switch u, err := syntax.WebURL(raw); {
		case err != nil:
			v.fault(p, "%q: %v", syntax.ShownURL(raw), err)
		case u.RawQuery != "" || u.ForceQuery:
			v.fault(p, "%q: take the query (?…) out of it: metrics and logs show the URL", syntax.ShownURL(raw))
		}
		if slices.Index(is.Confirm, raw) < j {
			v.fault(p, "%q appears twice", raw)
		}
	}
	// A rotator that publishes nothing has only these to read back, and without
	// a read-back no key may ever sign. What the publishers serve themselves is
	// covered by S in the lead.
	if v.cfg.Has(Rotator) && !v.cfg.Has(Publisher) && len(is.Confirm) == 0 {
		v.follows(where+".confirm", "is missing: this daemon rotates and does not publish, so it must fetch the set where consumers do; name that URL")
	}
}

// served checks what targets of all issuers share: the paths of the one public
// listener.
func (v *validator) served() {
	c := v.cfg
	paths := map[string]string{}
	for i := range c.Issuers {
		paths[c.Issuers[i].DiscoveryPath()] = at("issuers", i) + " for its discovery document"
	}
	http := false
	for i := range c.Issuers {
		for j, t := range c.Issuers[i].Publish {
			p := at(at("issuers", i)+".publish", j)
			if !t.HTTP {
				continue
			}
			http = true
			if other := paths[t.Path]; other != "" {
				v.fault(p+".path", "%s is served for %s as well: give this one another path", t.Path, other)
			}
			paths[t.Path] = p
			if c.Listen.Public.Addr == "" && c.Has(Publisher) {
				v.follows(p+".http", "needs a listener: add listen.public with addr and tls")
			}
		}
	}
	if c.Listen.Public.Addr != "" && !http && len(c.Issuers) > 0 {
		v.warn("listen.public serves nothing: no issuer has a target with http: true")
	}
}

func (v *validator) rings() {
	c := v.cfg
	v.names("rings", len(c.Rings), func(i int) string { return c.Rings[i].Name })
	custody := CustodyVaultKV
	if c.Store == StoreLocal {
		custody = CustodyLocal
	}
	for i, r := range c.Rings {
		where := at("rings", i)
		if v.need(where+".issuer", r.Issuer, "the name of the issuer whose set the keys are in") {
			if _, ok := c.Issuer(r.Issuer); !ok {
				v.follows(where+".issuer", "there is no issuer %q: the issuers are %s", r.Issuer, list(c.Issuers, func(x Issuer) string { return x.Name }))
			}
		}
		if v.oneOf(where+".custody", r.Custody, CustodyVaultKV, CustodyLocal) && r.Custody != custody && (c.Store == StoreVault || c.Store == StoreLocal) {
			v.fault(where+".custody", "is %s, and store %s keeps private halves as %s: take custody out, or change the store", r.Custody, c.Store, custody)
		}
		if v.need(where+".algorithm", string(r.Algorithm), "such as ES256, EdDSA or RS256") {
			v.check(where+".algorithm", r.Algorithm.Check(r.RSABits))
		}
		v.need(where+".rotate", r.Rotate, `a cron schedule, such as "0 3 * * 0" for Sundays at three (UTC)`)
		v.wholeSeconds(where+".max_token_ttl", r.MaxTokenTTL)
	}
}

// wholeSeconds checks a duration that ends up in a token or a header.
func (v *validator) wholeSeconds(where string, d strictyaml.Duration) {
	if d < strictyaml.Duration(time.Second) || time.Duration(d)%time.Second != 0 {
		v.fault(where, "is %s: whole seconds, at least 1s", d)
	}
}

// list names things for a message.
func list[T any](things []T, nameOf func(T) string) string {
	if len(things) == 0 {
		return "none"
	}
	names := make([]string, len(things))
	for i, t := range things {
		names[i] = nameOf(t)
	}
	return strings.Join(names, ", ")
}
