package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/condition"
	"github.com/keyturn/keyturn/signer/gate"
)

// AnyName stands for every audience or claim in a profile's list.
const AnyName = "*"

// DefaultType is the header typ of a profile that names none (RFC 7519 §5.1).
const DefaultType = "JWT"

// Profile says who may sign what.
type Profile struct {
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
	Add []Claim
}

// Claim is one claim and its value, any JSON.
type Claim struct {
	Name  string
	Value json.RawMessage
}

// TTL bounds the life of tokens, in whole seconds.
type TTL struct{ Default, Max time.Duration }

// profile is a Profile that was found sound, ready to judge requests.
type profile struct {
	Profile
	issuer  string
	subject *regexp.Regexp // nil unless the request chooses
	// onlyAudience is what a request without one gets; "" if it has to name one.
	onlyAudience string
	anyAudience  bool
	claims       claimRules
	// accessToken: the typ is at+jwt (RFC 9068).
	accessToken bool
	when        *condition.Condition // nil without one
	rate        gate.Rate
	// The TTLs in seconds.
	defaultTTL, maxTTL int64
}

func compileAll(list []Profile, rings map[string]Ring) (map[string]*profile, error) {
	out := map[string]*profile{}
	var errs []error
	for _, cfg := range list {
		p, err := compile(cfg, rings)
		if out[cfg.Name] != nil {
			err = errors.Join(err, errors.New("another profile has this name"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("profile %q: %w", cfg.Name, err))
			continue
		}
		out[cfg.Name] = p
	}
	return out, errors.Join(errs...)
}

// CheckProfile lists what is wrong with one profile, each beginning with the
// field that it is about.
func CheckProfile(p Profile, rings []Ring) []error {
	byName := map[string]Ring{}
	for _, r := range rings {
		byName[r.Name] = r
	}
	_, err := compile(p, byName)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// compile reports all faults of a profile at once.
func compile(cfg Profile, rings map[string]Ring) (*profile, error) {
	if cfg.Type == "" {
		cfg.Type = DefaultType
	}
	p := &profile{
		Profile: cfg, anyAudience: slices.Contains(cfg.Audiences, AnyName),
		defaultTTL: int64(cfg.TTL.Default / time.Second), maxTTL: int64(cfg.TTL.Max / time.Second),
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if cfg.Name == "" || len(cfg.Name) > maxName {
		fault("name: it needs 1 to %d bytes", maxName)
	}
	if r, odd := unprintable(cfg.Name); odd {
		fault("name: it holds %U, which does not print; leave it out", r)
	}
	ring, ok := rings[cfg.Ring]
	if !ok {
		fault("ring: there is no ring %q; the rings are %s", cfg.Ring, keyring.Quoted(slices.Sorted(maps.Keys(rings))))
	}
	p.issuer = ring.Issuer
	errs = append(errs, checkRules(cfg.Allow)...)
	errs = append(errs, p.compileSubject()...)
	errs = append(errs, p.compileAudiences()...)
	var claimErrs []error
	p.claims, claimErrs = compileClaims(cfg.Claims)
	errs = append(errs, claimErrs...)
	errs = append(errs, p.compileType()...)
	errs = append(errs, p.compileWhen()...)
	if cfg.Rate.PerSecond < 0 || cfg.Rate.Burst < 0 || cfg.Rate.Burst > 0 && cfg.Rate.PerSecond == 0 {
		fault("rate: per_second and burst are at least 1")
	}
	if cfg.Rate.Burst == 0 {
		p.Rate.Burst = cfg.Rate.PerSecond
	}
	p.rate = gate.Rate{PerSecond: float64(p.Rate.PerSecond), Burst: p.Rate.Burst}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{{"default", cfg.TTL.Default}, {"max", cfg.TTL.Max}} {
		if t.value < time.Second || t.value%time.Second != 0 {
			fault("ttl.%s: %s; it takes whole seconds, at least 1s", t.name, t.value)
		}
	}
	if cfg.TTL.Default > cfg.TTL.Max {
		fault("ttl.default: %s is longer than ttl.max (%s)", cfg.TTL.Default, cfg.TTL.Max)
	}
	if ok && cfg.TTL.Max > ring.MaxTokenTTL {
		fault("ttl.max: %s is longer than max_token_ttl of ring %q (%s); lower it, or raise that one", cfg.TTL.Max, ring.Name, ring.MaxTokenTTL)
	}
	return p, errors.Join(errs...)
}

func checkRules(rules []Rule) []error {
	var errs []error
	if len(rules) == 0 {
		errs = append(errs, errors.New("allow: it is empty, so nobody could use the profile; name sockets, uids or gids"))
	}
	for i, r := range rules {
		if r.Socket == "" && r.UID == nil && r.GID == nil {
			errs = append(errs, fmt.Errorf("allow item %d: it is empty and would match everybody; name a socket, uid or gid", i+1))
		}
		if r.UID != nil && isNobody(*r.UID) {
			errs = append(errs, fmt.Errorf("allow item %d: uid %d may stand for anybody of another user namespace, so it never matches", i+1, *r.UID))
		}
		if r.GID != nil && isNobody(*r.GID) {
			errs = append(errs, fmt.Errorf("allow item %d: gid %d may stand for any group of another user namespace, so it never matches", i+1, *r.GID))
		}
	}
	return errs
}

func isNobody(id uint32) bool { return id == unixsock.Overflow || id == unixsock.Unknown }

// allows reports whether one rule matches the caller. A caller without an
// identity, or with that of a foreign user namespace, matches none: not even
// one that names its socket only.
func (p *profile) allows(c caller) bool {
	if !c.known || isNobody(c.peer.UID) {
		return false
	}
	return slices.ContainsFunc(p.Allow, func(r Rule) bool {
		return (r.Socket == "" || r.Socket == c.socket) &&
			(r.UID == nil || c.peer.HasUID(*r.UID)) &&
			(r.GID == nil || c.peer.HasGID(*r.GID))
	})
}

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (p *profile) compileSubject() []error {
	s := p.Subject
	set := 0
	for _, v := range []string{s.Fixed, s.FromPeer, s.Pattern} {
		if v != "" {
			set++
		}
	}
	if set != 1 {
		return []error{errors.New("subject: set exactly one of fixed, from_peer and pattern")}
	}
	var errs []error
	if r, odd := unprintable(s.Fixed + s.FromPeer); odd {
		errs = append(errs, fmt.Errorf("subject: it holds %U, which does not print; leave it out", r))
	}
	if s.FromPeer != "" {
		found := placeholder.FindAllString(s.FromPeer, -1)
		for _, name := range found {
			if name != "{uid}" && name != "{gid}" {
				errs = append(errs, fmt.Errorf("subject.from_peer: unknown placeholder %s; there are {uid} and {gid}", name))
			}
		}
		if strings.ContainsAny(placeholder.ReplaceAllString(s.FromPeer, ""), "{}") {
			errs = append(errs, errors.New("subject.from_peer: a brace without its partner"))
		}
		if len(found) == 0 {
			errs = append(errs, errors.New("subject.from_peer: it holds neither {uid} nor {gid}; for one subject use fixed"))
		}
	}
	if s.Pattern != "" {
		// Alone first: a)|(b would be sound only between our parentheses.
		if _, err := regexp.Compile(s.Pattern); err != nil {
			return append(errs, fmt.Errorf("subject.pattern: %w", err))
		}
		var err error
		if p.subject, err = regexp.Compile(`\A(?:` + s.Pattern + `)\z`); err != nil {
			errs = append(errs, fmt.Errorf("subject.pattern: %w", err))
		}
	}
	return errs
}

func (p *profile) compileAudiences() []error {
	var errs []error
	var named []string
	for _, a := range p.Audiences {
		r, odd := unprintable(a)
		switch {
		case a == "":
			errs = append(errs, errors.New("audiences: one is empty"))
		case odd:
			errs = append(errs, fmt.Errorf("audiences: %q holds %U, which does not print; leave it out", a, r))
		case a != AnyName && slices.Contains(named, a):
			errs = append(errs, fmt.Errorf("audiences: %q appears twice", a))
		case a != AnyName:
			named = append(named, a)
		}
	}
	if len(p.Audiences) == 0 {
		errs = append(errs, fmt.Errorf("audiences: none; list who the tokens are for, or %q to let requests name anybody", AnyName))
	}
	if len(named) == 1 {
		p.onlyAudience = named[0]
	}
	return errs
}

var typeSyntax = regexp.MustCompile(`\A[A-Za-z0-9!#$&^_.+-]+(/[A-Za-z0-9!#$&^_.+-]+)?\z`)

// compileType takes any media type, and holds an access token's profile
// against RFC 9068. What other types demand is between the profile's author and
// the consumers: there are too many, and new ones come.
func (p *profile) compileType() []error {
	if !typeSyntax.MatchString(p.Type) {
		return []error{fmt.Errorf("typ: %q is not a media type (RFC 7515 §4.1.9)", p.Type)}
	}
	if p.accessToken = isAccessToken(p.Type); p.accessToken {
		return p.checkAccessToken()
	}
	return nil
}

// listed is the profile as its callers see it.
func (p *profile) listed(algorithm string) api.Profile {
	return api.Profile{
		Name: p.Name, Issuer: p.issuer, Ring: p.Ring, Algorithm: algorithm, Type: p.Type,
		Subject:           api.Subject{Fixed: p.Subject.Fixed, FromPeer: p.Subject.FromPeer, Pattern: p.Subject.Pattern},
		Audiences:         filled(p.Audiences),
		AllowedClaims:     filled(p.Claims.Allow),
		RequiredClaims:    filled(p.Claims.Require),
		DefaultTTLSeconds: p.defaultTTL, MaxTTLSeconds: p.maxTTL,
	}
}

// filled makes an empty list [] in JSON.
func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// fromPeer fills the template of the profile's subject.
func (p *profile) fromPeer(peer unixsock.Peer) string {
	return strings.NewReplacer(
		"{uid}", strconv.FormatUint(uint64(peer.UID), 10),
		"{gid}", strconv.FormatUint(uint64(peer.GID), 10),
	).Replace(p.Subject.FromPeer)
}
