package profile

import (
	"time"

	"github.com/keyturn/keyturn/signer/request"
)

// AnyName stands for every audience or claim in a profile's list.
const AnyName = "*"

// DefaultType is the header typ of a profile that names none (RFC 7519 §5.1).
const DefaultType = "JWT"

// Config is a profile as the configuration has it.
type Config struct {
	Name string
	// Ring is whose active key signs.
	Ring string
	// Type is the header typ; "" means DefaultType. "at+jwt" is checked against
	// RFC 9068.
	Type string
	// Allow lists the callers; one match is enough.
	Allow   []Rule
	Subject Subject
	// Audiences that a request may choose from. AnyName allows every one. A
	// request that names none gets the only one that is spelled out here.
	Audiences []string
	Claims    Claims
	TTL       TTL
	// When is a condition in CEL over claims, peer and request (package
	// condition); "" is none.
	When string
	Rate Rate
}

// Rate limits how often each caller (uid) may sign by a profile; zero is no limit.
type Rate struct {
	// PerSecond is how many requests a second, on and on.
	PerSecond int
	// Burst is how many at once, after a while without any; 0 is PerSecond.
	Burst int
}

// Rule matches callers: what is set is ANDed, and something has to be.
type Rule struct {
	// Socket is the name of the sign socket; "" leaves it open.
	Socket string
	UID    *uint32
	// GID is the primary group or a supplementary one.
	GID *uint32
}

// Subject says where `sub` comes from; exactly one member is set.
type Subject struct {
	Fixed string
	// FromPeer is a template over the caller: {uid} and {gid}.
	FromPeer string
	// Pattern is a regular expression (RE2) that has to match the whole of the
	// request's subject, with or without ^ and $.
	Pattern string
}

// Claims says which claims tokens carry beside those that keyturn writes.
type Claims struct {
	// Allow lists what a request may name, AnyName everything.
	Allow []string
	// Require lists what a request must name; null does not count. Each has to be allowed.
	Require []string
	// Add is put into every token.
	Add []request.Claim
}

// TTL bounds the life of tokens, in whole seconds.
type TTL struct{ Default, Max time.Duration }

// Ring is what a profile has to know of the ring whose keys sign.
type Ring struct {
	Name   string
	Issuer string
	// MaxTokenTTL bounds the profiles. What a key may sign in the end is in the
	// manifest.
	MaxTokenTTL time.Duration
}
