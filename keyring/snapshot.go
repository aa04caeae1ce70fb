package keyring

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Schema is the version of the manifest that this code writes. Another one is
// read where it can be and never written.
const Schema = 1

// Snapshot is one value of an issuer's manifest: immutable once it is shared.
type Snapshot struct {
	Schema int `json:"schema"`
	// Lineage is random and minted once, when the issuer is born. Manifests and
	// published sets of another lineage are not ours to replace.
	Lineage string `json:"lineage"`
	// Generation grows by one with every write.
	Generation uint64 `json:"generation"`
	// WriteID is random for every write: who reads back its own knows that a
	// write whose reply was lost has happened.
	WriteID   string    `json:"write_id"`
	WrittenAt time.Time `json:"written_at"`
	// StoreVersion is the store's own version of this write (Vault's KV version),
	// 0 where it is not known. A store that was restored issues its versions
	// again: keyturn accept goes on past every one that was seen.
	StoreVersion int `json:"store_version,omitempty"`
	// Frozen is the mark under which nobody plans on this manifest.
	Frozen *Frozen `json:"frozen,omitempty"`
	// Config is the configuration in force: replicas act on it, not on their file.
	Config Config `json:"config"`
	// Floor keeps the span that applied before a revision lowered it.
	Floor *Floor `json:"floor,omitempty"`
	// Lease is how long this issuer's active keys may sign (sign_until).
	Lease   time.Time `json:"lease,omitzero"`
	Keys    []Key     `json:"keys"`
	Adopted []Adopted `json:"adopted,omitempty"`
	// Orphans are private halves that no manifest named, recorded as closed
	// before they are destroyed.
	Orphans []Orphan `json:"orphans,omitempty"`

	extra extra
}

// Frozen says why nobody may plan on a manifest, and the highest mark that a
// replica has held against it. Lineage and Generation are empty where nobody
// had one.
type Frozen struct {
	At         time.Time `json:"at"`
	Reason     string    `json:"reason"`
	Lineage    string    `json:"lineage"`
	Generation uint64    `json:"generation"`
	// StoreVersion is the store's version that the mark was read under.
	StoreVersion int `json:"store_version,omitempty"`

	extra extra
}

// Floor is the span S that still counts until a time, although a later
// revision lowered what it derives from.
type Floor struct {
	Span  Duration  `json:"span"`
	Until time.Time `json:"until"`

	extra extra
}

// Adopted is a foreign key that stays in the set until a date.
type Adopted struct {
	JWK   JWK       `json:"jwk"`
	Until time.Time `json:"until"`
	// Revoked keeps a key out of the set, and from being adopted again.
	Revoked time.Time `json:"revoked,omitzero"`

	extra extra
}

// Orphan is a private half that was deposited and never named by a manifest.
type Orphan struct {
	Kid    string    `json:"kid"`
	Closed time.Time `json:"closed"`

	extra extra
}

// Config is an issuer's configuration in force, with the revision of the file
// that it came from.
type Config struct {
	Name     string `json:"name"`
	URL      string `json:"url"`
	Revision int64  `json:"revision"`
	// ConsumerCache (C) is the oldest copy of the set that a consumer may use.
	ConsumerCache Duration `json:"consumer_cache"`
	// JWKSMaxAge is the max-age that is sent with the set.
	JWKSMaxAge Duration `json:"jwks_max_age"`
	// Leeway (λ) is what consumers grant on exp.
	Leeway Duration `json:"leeway"`
	// OutageBudget (B) is how long keyturn signs on without its store. Zero in
	// a file means that Resolve derives it.
	OutageBudget Duration `json:"outage_budget"`
	// ClockSkew (E) is the largest difference between any two clocks.
	ClockSkew Duration `json:"clock_skew"`
	// SyncInterval is how often a replica reads the manifest. It counts in S,
	// so it belongs to what the replicas agree on.
	SyncInterval Duration `json:"sync_interval"`
	// MaxKeys is the most keys that the set may hold.
	MaxKeys int `json:"max_keys"`
	// SingleProcess says that the custody is local: there is one process and
	// nothing that it could be cut off from, so S does not count.
	SingleProcess bool `json:"single_process,omitempty"`
	// Targets and Rings are sorted by name.
	Targets []Target `json:"targets"`
	Rings   []Ring   `json:"rings"`

	extra extra
}

// TargetKind says how a target is written and who reads it back.
type TargetKind string

// The kinds of targets. File and HTTP are served by each replica itself, so
// the span S counts for them; bucket and confirm are shared.
const (
	TargetFile    TargetKind = "file"
	TargetHTTP    TargetKind = "http"
	TargetBucket  TargetKind = "bucket"
	TargetConfirm TargetKind = "confirm"
)

// Target is a place where consumers find the set.
type Target struct {
	// Name is unique in the issuer; of a confirm URL it is the URL.
	Name string     `json:"name"`
	Kind TargetKind `json:"kind"`
	// Required targets gate activation.
	Required bool `json:"required"`
	View     View `json:"view,omitempty"`
	// AdoptUntil lets keyturn take over a set that it did not write: the keys
	// found there stay in the set until then. Zero refuses such a target.
	AdoptUntil time.Time `json:"adopt_until,omitzero"`

	extra extra
}

// SelfServed reports whether each replica serves this target itself.
func (t Target) SelfServed() bool { return t.Kind == TargetFile || t.Kind == TargetHTTP }

// Ring is one algorithm on one schedule.
type Ring struct {
	Name      string    `json:"name"`
	Algorithm Algorithm `json:"algorithm"`
	RSABits   int       `json:"rsa_bits,omitempty"`
	Custody   string    `json:"custody"`
	// Rotate is a cron expression; UTC unless CRON_TZ= says otherwise.
	Rotate string `json:"rotate"`
	// MaxTokenTTL is the longest life of a token of this ring.
	MaxTokenTTL Duration `json:"max_token_ttl"`

	extra extra
}

// Key is one key: its public half, where the private one is, and the times at
// which things happened to it. The kid is JWK.Kid.
type Key struct {
	JWK     JWK    `json:"jwk"`
	Ring    string `json:"ring"`
	Custody string `json:"custody"`
	// Handle is what the custody finds the private half by.
	Handle string `json:"handle"`
	// Founding keys are born with their issuer: no consumer can hold an older
	// set, so they need no lead, unless the issuer takes over a foreign set.
	Founding bool      `json:"founding,omitempty"`
	Created  time.Time `json:"created"`
	// Confirmed holds, per target, when it was read back with this key.
	Confirmed map[string]time.Time `json:"confirmed,omitempty"`
	Activated time.Time            `json:"activated,omitzero"`
	// Forced is when an operator let the key sign although it was not proven:
	// tokens that it signed before its lead had passed are outside the promise.
	Forced  time.Time `json:"forced,omitzero"`
	Retired time.Time `json:"retired,omitzero"`
	// SignUntil is the lease at retirement: until then a replica that has not
	// heard of it may sign. Of an active key it is the snapshot's lease.
	SignUntil time.Time `json:"sign_until,omitzero"`
	Closed    time.Time `json:"closed,omitzero"`
	Destroyed time.Time `json:"destroyed,omitzero"`
	Revoked   time.Time `json:"revoked,omitzero"`
	// MaxTTL and Tail are the largest under which this key could ever sign;
	// raised before anybody signs longer, never lowered.
	MaxTTL Duration `json:"max_ttl"`
	Tail   Duration `json:"tail"`

	extra extra
}

// Clone is a deep copy, to be changed before it is shared.
func (s *Snapshot) Clone() *Snapshot {
	c := *s
	c.Config = s.Config.Clone()
	c.Keys = slices.Clone(s.Keys)
	for i := range c.Keys {
		c.Keys[i].Confirmed = maps.Clone(c.Keys[i].Confirmed)
	}
	c.Adopted = slices.Clone(s.Adopted)
	c.Orphans = slices.Clone(s.Orphans)
	if s.Frozen != nil {
		f := *s.Frozen
		c.Frozen = &f
	}
	if s.Floor != nil {
		f := *s.Floor
		c.Floor = &f
	}
	return &c
}

// Clone is a deep copy.
func (c Config) Clone() Config {
	c.Targets = slices.Clone(c.Targets)
	c.Rings = slices.Clone(c.Rings)
	return c
}

// Ring is the ring of that name in force.
func (c *Config) Ring(name string) (Ring, bool) {
	for _, r := range c.Rings {
		if r.Name == name {
			return r, true
		}
	}
	return Ring{}, false
}

// SelfServed reports whether replicas serve the set themselves.
func (c *Config) SelfServed() bool { return slices.ContainsFunc(c.Targets, Target.SelfServed) }

// adopts reports an issuer that takes over a foreign set: it was never
// unpublished, so its first keys wait their lead like any other.
func (c *Config) adopts() bool {
	return slices.ContainsFunc(c.Targets, func(t Target) bool { return !t.AdoptUntil.IsZero() })
}

// Key is the key of that kid, nil if there is none. It is not to be changed.
func (s *Snapshot) Key(kid string) *Key {
	for i := range s.Keys {
		if s.Keys[i].JWK.Kid == kid {
			return &s.Keys[i]
		}
	}
	return nil
}

// Active is the key with which a ring signs, nil if nobody may.
func (s *Snapshot) Active(ring string) *Key {
	return s.find(ring, func(k *Key) bool { return k.isActive() })
}

// Standby is the key that is next in its ring; of two, while the algorithm
// changes, the one of the configured algorithm if it is proven, or the old one.
func (s *Snapshot) Standby(ring string) *Key {
	var next *Key
	for _, k := range s.standbys(ring) {
		if next == nil || (s.matches(k) && len(s.WaitingFor(k)) == 0) {
			next = k
		}
	}
	return next
}

func (s *Snapshot) standbys(ring string) []*Key {
	var out []*Key
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Ring == ring && k.isStandby() {
			out = append(out, k)
		}
	}
	return out
}

// matches reports whether a key is of the algorithm and custody that its ring
// has now.
func (s *Snapshot) matches(k *Key) bool {
	r, ok := s.Config.Ring(k.Ring)
	return ok && k.JWK.Alg == r.Algorithm && k.Custody == r.Custody && k.modulusBits() == r.RSABits
}

func (s *Snapshot) find(ring string, is func(*Key) bool) *Key {
	for i := range s.Keys {
		if s.Keys[i].Ring == ring && is(&s.Keys[i]) {
			return &s.Keys[i]
		}
	}
	return nil
}

// modulusBits is the length of an RSA modulus, 0 for other keys. N has no
// leading zero octet and its top bit is set, so its octets tell.
func (k *Key) modulusBits() int {
	if k.JWK.Kty != "RSA" {
		return 0
	}
	return b64.DecodedLen(len(k.JWK.N)) * 8
}

// sortByRetirement puts the key that was active last first.
func sortByRetirement(keys []*Key) {
	slices.SortStableFunc(keys, func(a, b *Key) int { return b.Retired.Compare(a.Retired) })
}

func sortConfig(c *Config) {
	slices.SortFunc(c.Targets, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Rings, func(a, b Ring) int { return strings.Compare(a.Name, b.Name) })
}
