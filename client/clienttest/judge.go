package clienttest

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// The daemon's bounds of a request.
const (
	maxText      = 1024
	maxAudiences = 100
	anyName      = "*"
)

const (
	defaultTTL = 5 * time.Minute
	maxTTL     = time.Hour
)

// profile is a Profile that was found sound.
type profile struct {
	Profile
	subject *regexp.Regexp // nil unless the request chooses
	// lenient takes requests that leave out subject and audience.
	lenient bool
}

// wanted is a token that may be signed.
type wanted struct {
	typ, subject string
	audience     []string
	ttl          int64 // seconds
	claims       map[string]any
}

func compile(p Profile, alg keyring.Algorithm) (profile, error) {
	out := profile{Profile: p}
	if out.DefaultTTLSeconds == 0 {
		out.DefaultTTLSeconds = int64(defaultTTL / time.Second)
	}
	if out.MaxTTLSeconds == 0 {
		out.MaxTTLSeconds = max(int64(maxTTL/time.Second), out.DefaultTTLSeconds)
	}
	if out.Type == "" {
		out.Type = "JWT"
	}
	if out.Subject == (api.Subject{}) {
		out.Subject.Pattern = ".+"
	}
	if out.Audiences == nil {
		out.Audiences = []string{anyName}
	}
	out.Algorithm = string(alg)
	if out.Subject.Pattern == "" {
		return out, nil
	}
	re, err := regexp.Compile(`\A(?:` + out.Subject.Pattern + `)\z`)
	if err != nil {
		return out, fmt.Errorf("subject: %w", err)
	}
	out.subject = re
	return out, nil
}

// anyProfile is what every name means where the test has no profiles.
func anyProfile(alg keyring.Algorithm) profile {
	p := Profile{Profile: api.Profile{Name: "any", AllowedClaims: []string{anyName}}}
	out, _ := compile(p, alg) // it has one subject pattern, which compiles
	out.lenient = true
	return out
}

func invalid(format string, args ...any) *api.Problem {
	return api.NewProblem(api.InvalidRequest, fmt.Sprintf(format, args...))
}

// judge decides as the daemon does, in its order.
func (s *Server) judge(req *api.SignRequest) (wanted, *api.Problem) {
	var out wanted
	if req.Profile == "" {
		return out, invalid("profile is missing; GET /v1/profiles lists those that this caller may use")
	}
	p := anyProfile(s.alg)
	if len(s.profiles) > 0 {
		i := slices.IndexFunc(s.profiles, func(p profile) bool { return p.Name == req.Profile })
		if i < 0 {
			return out, api.NewProblem(api.Forbidden, "this caller may not use this profile through this socket; GET /v1/profiles lists those that it may use")
		}
		p = s.profiles[i]
	}
	out.typ, out.ttl = p.Type, p.DefaultTTLSeconds
	if req.TTLSeconds != nil {
		out.ttl = *req.TTLSeconds
	}
	var prob *api.Problem
	if out.subject, prob = p.judgeSubject(req.Subject); prob != nil {
		return out, prob
	}
	if out.audience, prob = p.judgeAudience(req.Audience); prob != nil {
		return out, prob
	}
	switch {
	case out.ttl < 1:
		return out, invalid("ttl_seconds is %d: at least 1; leave it out for the profile's default of %d", out.ttl, p.DefaultTTLSeconds)
	case out.ttl > p.MaxTTLSeconds:
		return out, api.NewProblem(api.TTLTooLong, fmt.Sprintf("ttl_seconds is %d: the profile allows %d at most", out.ttl, p.MaxTTLSeconds))
	}
	if out.claims, prob = p.judgeClaims(req.Claims); prob != nil {
		return out, prob
	}
	if id, ok := req.Claims["client_id"]; ok && strings.EqualFold(p.Type, "at+jwt") && (len(id) < 3 || id[0] != '"') {
		return out, invalid("claim client_id: it has to be a string that is not empty (RFC 9068 §2.2)")
	}
	return out, nil
}

func (p *profile) judgeSubject(asked string) (string, *api.Problem) {
	subject := asked
	switch {
	case len(asked) > maxText:
		return "", invalid("subject has %d bytes: at most %d", len(asked), maxText)
	case p.lenient && asked == "":
		return "anybody", nil
	case p.subject != nil && asked == "":
		return "", invalid("subject is missing: this profile lets the request choose it")
	case p.subject != nil && !p.subject.MatchString(asked):
		return "", invalid("subject does not match the profile's pattern %q", p.Subject.Pattern)
	case p.subject == nil && p.Subject.Fixed != "":
		subject = p.Subject.Fixed
	case p.subject == nil:
		subject = strings.NewReplacer("{uid}", strconv.Itoa(os.Geteuid()), "{gid}", strconv.Itoa(os.Getegid())).Replace(p.Subject.FromPeer)
	}
	if asked != "" && asked != subject {
		return "", invalid("subject is set by the profile; leave it out")
	}
	return subject, prints("subject", subject)
}

func (p *profile) judgeAudience(asked []string) ([]string, *api.Problem) {
	anyAudience := slices.Contains(p.Audiences, anyName)
	switch {
	case len(asked) > maxAudiences:
		return nil, invalid("audience has %d entries: at most %d", len(asked), maxAudiences)
	case len(asked) == 0 && p.lenient:
		return []string{"anything"}, nil
	case len(asked) == 0 && len(p.Audiences) == 1 && !anyAudience:
		return p.Audiences, nil
	case len(asked) == 0:
		return nil, invalid("audience is missing: choose from %q", p.Audiences)
	}
	for i, a := range asked {
		switch {
		case a == "":
			return nil, invalid("audience is empty: name who the token is for")
		case len(a) > maxText:
			return nil, invalid("audience has an entry of %d bytes: at most %d", len(a), maxText)
		case slices.Contains(asked[:i], a):
			return nil, invalid("audience names %q twice", a)
		case a == anyName, !anyAudience && !slices.Contains(p.Audiences, a):
			return nil, invalid("audience %q is not one of the profile's; choose from %q", a, p.Audiences)
		}
		if prob := prints("audience", a); prob != nil {
			return nil, prob
		}
	}
	return asked, nil
}

// judgeClaims returns the claims of the token beside those of every token.
func (p *profile) judgeClaims(asked map[string]json.RawMessage) (map[string]any, *api.Problem) {
	out := map[string]any{}
	forbidden := func(format string, args ...any) (map[string]any, *api.Problem) {
		return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf(format, args...))
	}
	for name, value := range asked {
		same := func(other string) bool { return strings.EqualFold(name, other) }
		means := slices.ContainsFunc(slices.Concat(p.AllowedClaims, p.RequiredClaims), func(other string) bool { return other != name && same(other) })
		switch {
		case name == "":
			return forbidden("a claim needs a name")
		case prints("claim", name) != nil:
			return forbidden("the claim %q holds what does not print; leave it out", name)
		case slices.ContainsFunc([]string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "alg", "kid", "typ"}, same):
			return forbidden("keyturn alone writes the claim %q; leave it out of claims", name)
		case containsName(p.Add, same):
			return forbidden("the profile itself sets the claim %q; leave it out", name)
		case means:
			return forbidden("some readers take the claim %q for another that the profile names; leave it out", name)
		case !slices.Contains(p.AllowedClaims, anyName) && !slices.Contains(p.AllowedClaims, name):
			return forbidden("the profile does not allow the claim %q; GET /v1/profiles lists what it allows", name)
		case containsName(out, same):
			return nil, invalid("two claims differ from %q in case only, and some readers take one for the other", name)
		}
		out[name] = value
	}
	for _, name := range p.RequiredClaims {
		if raw, ok := asked[name]; !ok || string(raw) == "null" {
			return nil, invalid("the profile requires the claim %q", name)
		}
	}
	for name, value := range p.Add {
		out[name] = value
	}
	return out, nil
}

func containsName(members map[string]any, same func(string) bool) bool {
	for name := range members {
		if same(name) {
			return true
		}
	}
	return false
}

// prints refuses text that readers and terminals take for another one.
func prints(what, text string) *api.Problem {
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		return invalid("%s holds a character that does not print; leave it out", what)
	}
	return nil
}
