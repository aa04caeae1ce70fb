package configs

import "github.com/keyturn/keyturn/configs/strictyaml"

// Profile says who may sign what. The signer judges its rules; this package
// what it refers to.
type Profile struct {
	Name string `yaml:"name"`
	// Ring whose active key signs. Required.
	Ring string `yaml:"ring"`
	// Allow lists the callers; one match is enough. Required.
	Allow []Allow `yaml:"allow,flow"`
	// Subject says where `sub` comes from. Required.
	Subject Subject `yaml:"subject,flow"`
	// Audiences that a request may name; "*" for any. Required.
	Audiences []string `yaml:"audiences,flow"`
	Claims    Claims   `yaml:"claims,omitempty"`
	TTL       TTL      `yaml:"ttl,flow"`
	// Typ is the header `typ`, a media type. at+jwt is held against RFC 9068. [JWT]
	Typ string `yaml:"typ"`
	// When is a condition in CEL over claims, peer and request, which has to be
	// true. The signer compiles it. [none]
	When string `yaml:"when,omitempty"`
	// Rate limits how often each caller (uid) may sign by the profile. [no limit]
	Rate Rate `yaml:"rate,omitempty,flow"`
}

// Rate is so many signatures a second, and so many at once.
type Rate struct {
	// PerSecond is at least 1. Required.
	PerSecond int `yaml:"per_second"`
	// Burst is how many at once after a while without any, at least 1. [per_second]
	Burst int `yaml:"burst"`
}

// Allow matches callers. Fields are ANDed; an empty one is refused.
type Allow struct {
	// Socket is the name of the sign socket that the caller came through.
	Socket string  `yaml:"socket,omitempty"`
	UID    *uint32 `yaml:"uid,omitempty"`
	// GID is the caller's primary or a supplementary group.
	GID *uint32 `yaml:"gid,omitempty"`
}

// Subject says where `sub` comes from; exactly one field is set.
type Subject struct {
	// Fixed is the subject of every token.
	Fixed string `yaml:"fixed,omitempty"`
	// FromPeer builds it from the caller: uid:{uid}.
	FromPeer string `yaml:"from_peer,omitempty"`
	// Pattern is a regular expression (RE2) that the whole of the request's
	// subject must match, with or without ^ and $.
	Pattern string `yaml:"pattern,omitempty"`
}

// Claims of a profile's tokens.
type Claims struct {
	// Allow lists claims that a request may name; "*" for any that keyturn does
	// not write itself. [none]
	Allow []string `yaml:"allow,omitempty,flow"`
	// Require lists claims that a request must name. [none]
	Require []string `yaml:"require,omitempty,flow"`
	// Add lists claims that every token gets. [none]
	Add []Claim `yaml:"add,omitempty,flow"`
}

// Claim is one claim with its value.
type Claim struct {
	Name string `yaml:"name"`
	// Value is any JSON value.
	Value strictyaml.JSON `yaml:"value"`
}

// TTL bounds the life of a profile's tokens, in whole seconds.
type TTL struct {
	// Default is the life of a token whose request names none. [5m, or max]
	Default strictyaml.Duration `yaml:"default"`
	// Max is the longest that a request may name. [the ring's max_token_ttl]
	Max strictyaml.Duration `yaml:"max"`
}
