package configs

import (
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/configs/strictyaml"
	"github.com/keyturn/keyturn/keyring"
)

// Issuer is one URL and the key set that is published under it. Its timing is
// told in docs/life-of-a-key.md.
type Issuer struct {
	Name string `yaml:"name"`
	// Revision is raised with every change of this issuer, its rings or its
	// targets: the manifest keeps what a higher revision said. From 1. Required.
	Revision int64 `yaml:"revision"`
	// URL becomes `iss`, byte for byte: https, without a slash at its end.
	// Required; it never changes.
	URL string `yaml:"url"`
	// ConsumerCache (C) is the oldest copy of the set that a consumer may still
	// use, counted from leaving keyturn, every cache between included. [15m]
	ConsumerCache strictyaml.Duration `yaml:"consumer_cache"`
	// JWKSMaxAge is sent as Cache-Control: max-age. [5m]
	JWKSMaxAge strictyaml.Duration `yaml:"jwks_max_age"`
	// Leeway is what consumers grant on `exp`; at least 1s. [60s]
	Leeway strictyaml.Duration `yaml:"leeway"`
	// OutageBudget (B) is how long keyturn signs on without its store; at most
	// 24h. [a third of the shortest gap between two rotations]
	OutageBudget strictyaml.Duration `yaml:"outage_budget,omitempty"`
	// ClockSkew (E) is the largest difference between any two clocks, those of
	// the consumers included. [10s]
	ClockSkew strictyaml.Duration `yaml:"clock_skew"`
	// MaxKeys is the most keys that the set may hold. [100]
	MaxKeys int `yaml:"max_keys"`
	// Publish lists where the set goes.
	Publish []Target `yaml:"publish"`
	// Confirm lists URLs that are fetched as a consumer would: no key signs
	// before each of them has shown it.
	Confirm []string `yaml:"confirm,omitempty,flow"`
}

// Target is one place where the set is published; either File or HTTP.
type Target struct {
	Name string `yaml:"name"`
	// File is written on this host, for a web server of yours.
	File string `yaml:"file,omitempty"`
	// HTTP serves the set from listen.public.
	HTTP bool `yaml:"http,omitempty"`
	// Path under which it is served, for http.
	// [path of the issuer's URL + /.well-known/jwks.json]
	Path string `yaml:"path,omitempty"`
	// Required: no key signs before it was read back here. [true]
	Required bool `yaml:"required"`
	// View leaves out what a kind of consumer cannot read: kubernetes or
	// spiffe. [every key]
	View keyring.View `yaml:"view,omitempty"`
	// AdoptUntil lets keyturn take over a set in File that it did not write: the
	// keys found there stay in the set until this date. [such a file is refused]
	AdoptUntil strictyaml.Date `yaml:"adopt_until,omitempty"`
}

// Kind is file or http.
func (t Target) Kind() keyring.TargetKind {
	if t.HTTP {
		return keyring.TargetHTTP
	}
	return keyring.TargetFile
}

// Ring is one algorithm on one schedule: a row of keys of which one signs.
type Ring struct {
	Name string `yaml:"name"`
	// Issuer names the issuer whose set the keys are in. Required; it never changes.
	Issuer string `yaml:"issuer"`
	// Custody says where private halves live: vaultkv with store vault, local
	// with store local. [that]
	Custody string `yaml:"custody"`
	// Algorithm is RS256…RS512, PS256…PS512, ES256, ES384, ES512 or EdDSA. Required.
	Algorithm keyring.Algorithm `yaml:"algorithm"`
	// RSABits is the length of an RSA modulus: 2048, 3072 or 4096. [3072]
	RSABits int `yaml:"rsa_bits,omitempty"`
	// Rotate is a cron schedule of five fields, UTC unless it begins with
	// CRON_TZ=. Required.
	Rotate string `yaml:"rotate"`
	// MaxTokenTTL (T) is the longest life of a token. [1h]
	MaxTokenTTL strictyaml.Duration `yaml:"max_token_ttl"`
}

// Custodies of private halves.
const (
	CustodyVaultKV = "vaultkv"
	CustodyLocal   = "local"
)

// JWKSPath is the default path of an http target.
func (i Issuer) JWKSPath() string { return i.wellKnown("jwks.json") }

// DiscoveryPath is where OpenID Connect discovery is served (OIDC Discovery §4).
func (i Issuer) DiscoveryPath() string { return i.wellKnown("openid-configuration") }

func (i Issuer) wellKnown(name string) string {
	u, err := url.Parse(i.URL)
	if err != nil {
		return "/.well-known/" + name // Validate lets no such URL through
	}
	return strings.TrimSuffix(u.Path, "/") + "/.well-known/" + name
}

// Keyring is the issuer's part of the configuration as the manifest keeps it,
// not yet resolved: an outage budget that the file leaves out is 0.
func (i Issuer) Keyring(c *Config) keyring.Config {
	k := keyring.Config{
		Name:          i.Name,
		URL:           i.URL,
		Revision:      i.Revision,
		ConsumerCache: keyring.Duration(i.ConsumerCache),
		JWKSMaxAge:    keyring.Duration(i.JWKSMaxAge),
		Leeway:        keyring.Duration(i.Leeway),
		OutageBudget:  keyring.Duration(i.OutageBudget),
		ClockSkew:     keyring.Duration(i.ClockSkew),
		SyncInterval:  keyring.Duration(c.SyncInterval),
		MaxKeys:       i.MaxKeys,
		SingleProcess: c.Store == StoreLocal,
	}
	for _, t := range i.Publish {
		k.Targets = append(k.Targets, keyring.Target{Name: t.Name, Kind: t.Kind(), Required: t.Required, View: t.View, AdoptUntil: t.AdoptUntil.Time()})
	}
	for _, u := range i.Confirm {
		k.Targets = append(k.Targets, keyring.Target{Name: u, Kind: keyring.TargetConfirm, Required: true})
	}
	for _, r := range c.Rings {
		if r.Issuer == i.Name {
			k.Rings = append(k.Rings, keyring.Ring{
				Name: r.Name, Algorithm: r.Algorithm, RSABits: r.RSABits, Custody: r.Custody,
				Rotate: r.Rotate, MaxTokenTTL: keyring.Duration(r.MaxTokenTTL),
			})
		}
	}
	slices.SortFunc(k.Targets, func(a, b keyring.Target) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(k.Rings, func(a, b keyring.Ring) int { return strings.Compare(a.Name, b.Name) })
	return k
}
