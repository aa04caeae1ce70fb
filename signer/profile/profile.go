package profile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/condition"
)

// Profile is a Config that was found sound, ready to judge requests. It is
// immutable, and so safe for many goroutines: the fields are for reading, with
// Type and Rate.Burst as they are where the configuration names none.
type Profile struct {
	Config
	// Issuer is that of the ring.
	Issuer  string
	subject *regexp.Regexp // nil unless the request chooses
	// onlyAudience is what a request without one gets; "" if it has to name one.
	onlyAudience string
	anyAudience  bool
	claims       claimRules
	// accessToken: the typ is at+jwt (RFC 9068).
	accessToken bool
	when        *condition.Condition // nil without one
	// The TTLs in seconds.
	defaultTTL, maxTTL int64
}

// Set is all profiles by name.
type Set map[string]*Profile

// Known is what there is for profiles to refer to.
type Known struct {
	Rings []Ring
	// Sockets are the names of the sign sockets, for conditions that compare
	// peer.socket with one; none: they are not known, and not looked at.
	Sockets []string
}

// Compile makes all profiles ready, or none: all faults are joined in the
// error, each with the profile's name and the field that it is about.
func Compile(list []Config, known Known) (Set, error) {
	out := Set{}
	var errs []error
	for _, cfg := range list {
		p, err := compile(cfg, known)
		if out[cfg.Name] != nil {
			err = errors.Join(err, errors.New("another profile has this name"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("profile %q: %w", cfg.Name, err))
			continue
		}
		out[cfg.Name] = p
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// Check lists what is wrong with one profile, each beginning with the field
// that it is about, as the file has it, or with "allow item N".
func Check(cfg Config, known Known) []error {
	_, err := compile(cfg, known)
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// AllowsAny reports whether some profile allows the caller.
func (s Set) AllowsAny(c Caller) bool {
	for _, p := range s {
		if p.Allows(c) {
			return true
		}
	}
	return false
}

// compile reports all faults of a profile at once.
func compile(cfg Config, known Known) (*Profile, error) {
	if cfg.Type == "" {
		cfg.Type = DefaultType
	}
	p := &Profile{
		Config: cfg, anyAudience: slices.Contains(cfg.Audiences, AnyName),
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
	ring, ok := known.ring(cfg.Ring)
	if !ok {
		fault("ring: there is no ring %q; the rings are %s", cfg.Ring, keyring.Quoted(known.ringNames()))
	}
	p.Issuer = ring.Issuer
	errs = append(errs, checkRules(cfg.Allow)...)
	errs = append(errs, p.compileSubject()...)
	errs = append(errs, p.compileAudiences()...)
	var claimErrs []error
	p.claims, claimErrs = compileClaims(cfg.Claims, specialClaims(cfg.Type))
	errs = append(errs, claimErrs...)
	errs = append(errs, p.compileType()...)
	errs = append(errs, p.compileWhen(known.Sockets)...)
	if cfg.Rate.PerSecond < 0 || cfg.Rate.Burst < 0 || cfg.Rate.Burst > 0 && cfg.Rate.PerSecond == 0 {
		fault("rate: per_second and burst are at least 1")
	}
	if cfg.Rate.Burst == 0 {
		p.Rate.Burst = cfg.Rate.PerSecond
	}
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

func (k Known) ring(name string) (Ring, bool) {
	i := slices.IndexFunc(k.Rings, func(r Ring) bool { return r.Name == name })
	if i < 0 {
		return Ring{}, false
	}
	return k.Rings[i], true
}

func (k Known) ringNames() []string {
	var out []string
	for _, r := range k.Rings {
		out = append(out, r.Name)
	}
	slices.Sort(out)
	return out
}

var typeSyntax = regexp.MustCompile(`\A[A-Za-z0-9!#$&^_.+-]+(/[A-Za-z0-9!#$&^_.+-]+)?\z`)

// compileType takes any media type, and holds an access token's profile
// against RFC 9068. What other types demand is between the profile's author and
// the consumers: there are too many, and new ones come.
func (p *Profile) compileType() []error {
	if !typeSyntax.MatchString(p.Type) {
		return []error{fmt.Errorf("typ: %q is not a media type (RFC 7515 §4.1.9)", p.Type)}
	}
	if p.accessToken = isAccessToken(p.Type); p.accessToken {
		return p.checkAccessToken()
	}
	return nil
}

// Listed is the profile as its callers see it. The algorithm is that of the
// ring now, "" where nobody knows yet.
func (p *Profile) Listed(algorithm string) api.Profile {
	out := api.Profile{
		Name: p.Name, Issuer: p.Issuer, Ring: p.Ring, Algorithm: algorithm, Type: p.Type,
		Subject:           api.Subject{Fixed: p.Subject.Fixed, FromPeer: p.Subject.FromPeer, Pattern: p.Subject.Pattern},
		Audiences:         filled(p.Audiences),
		AllowedClaims:     filled(p.Claims.Allow),
		RequiredClaims:    filled(p.Claims.Require),
		DefaultTTLSeconds: p.defaultTTL, MaxTTLSeconds: p.maxTTL,
		When: p.When,
	}
	if p.Rate != (Rate{}) {
		out.Rate = &api.Rate{PerSecond: p.Rate.PerSecond, Burst: p.Rate.Burst}
	}
	return out
}

// filled makes an empty list [] in JSON.
func filled(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
