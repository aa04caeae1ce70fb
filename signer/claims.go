package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

const clientID = "client_id"

// ours are the names that keyturn alone writes: claims and header members.
var ours = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "alg", "kid", "typ"}

// fold maps names to the same string when some JSON reader could take one for
// the other. Go's encoding/json matches names under Unicode simple folding and
// lets the last one win, so {"exp":1,"EXP":2} would outlive its exp.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A' // the smallest of its orbit
		}
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}

// unprintable is the first character that is not a letter, mark, number,
// punctuation, symbol or space, as far as there is one. What does not print is
// not the same to all: libjson-c reads "exp\u0000" as exp, and terminals and
// people turn around what follows U+202E.
func unprintable(s string) (rune, bool) {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return r, true
		}
	}
	return 0, false
}

// isOurs reports whether a name is, or could be taken for, one that keyturn writes.
func isOurs(name string) bool {
	return slices.ContainsFunc(ours, func(o string) bool { return strings.EqualFold(o, name) })
}

// claimRules are a profile's claims, ready to judge a request's.
type claimRules struct {
	any     bool
	allowed map[string]bool
	require []string
	// add is sorted by name; added holds the folded names.
	add   []Claim
	added map[string]bool
}

func compileClaims(cfg Claims) (claimRules, []error) {
	rules := claimRules{
		any: slices.Contains(cfg.Allow, AnyName), allowed: map[string]bool{},
		require: cfg.Require, add: slices.Clone(cfg.Add), added: map[string]bool{},
	}
	var errs []error
	seen := map[string]string{}
	check := func(list, name string) {
		r, odd := unprintable(name)
		before, twin := seen[fold(name)]
		seen[fold(name)] = name
		switch {
		case name == "":
			errs = append(errs, fmt.Errorf("%s: a claim needs a name", list))
		case odd:
			errs = append(errs, fmt.Errorf("%s: %q holds %U, which does not print; leave it out", list, name, r))
		case isOurs(name):
			errs = append(errs, fmt.Errorf("%s: %q is written by keyturn alone; leave it out", list, name))
		case twin && before == name:
			errs = append(errs, fmt.Errorf("%s: %q appears twice in claims.allow and claims.add", list, name))
		case twin:
			errs = append(errs, fmt.Errorf("%s: %q and %q differ in case only, and some readers take one for the other", list, before, name))
		}
	}
	for _, name := range cfg.Allow {
		check("claims.allow", name)
		rules.allowed[name] = true
	}
	for _, c := range cfg.Add {
		check("claims.add", c.Name)
		rules.added[fold(c.Name)] = true
		if c.Name == AnyName {
			errs = append(errs, fmt.Errorf("claims.add: %q is not a name", AnyName))
		}
		if err := strictjson.Check(c.Value); err != nil {
			errs = append(errs, fmt.Errorf("claims.add: value of %q: %w", c.Name, err))
		}
	}
	for i, name := range cfg.Require {
		r, odd := unprintable(name)
		switch {
		case odd:
			errs = append(errs, fmt.Errorf("claims.require: %q holds %U, which does not print; leave it out", name, r))
		case isOurs(name):
			errs = append(errs, fmt.Errorf("claims.require: %q is written by keyturn alone; leave it out", name))
		case name == "" || name == AnyName:
			errs = append(errs, fmt.Errorf("claims.require: %q is not a name", name))
		case slices.Contains(cfg.Require[:i], name):
			errs = append(errs, fmt.Errorf("claims.require: %q appears twice", name))
		case rules.added[fold(name)]:
			errs = append(errs, fmt.Errorf("claims.require: %q is in claims.add, so no request may name it", name))
		case !rules.any && !rules.allowed[name]:
			errs = append(errs, fmt.Errorf("claims.require: %q is not in claims.allow, so no request could name it", name))
		}
	}
	slices.SortStableFunc(rules.add, func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
	return rules, errs
}

// judge returns what the token carries beside keyturn's own claims, sorted by
// name, each value byte by byte as it came.
func (r *claimRules) judge(req *asked) ([]Claim, *api.Problem) {
	twins := newTwins(len(req.claims))
	for i, c := range req.claims {
		before, twin := twins.find(req.claims[:i], c.Name)
		char, odd := unprintable(c.Name)
		switch {
		case odd:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the claim %q holds %U, which does not print, and some readers take it for another claim; leave it out", clip(c.Name), char))
		case isOurs(c.Name):
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("keyturn alone writes %s, and %q could be taken for one of them; leave it out of claims", strings.Join(ours, ", "), clip(c.Name)))
		case len(r.added) > 0 && r.added[fold(c.Name)]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile itself sets the claim %q; leave it out", clip(c.Name)))
		case !r.any && !r.allowed[c.Name]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile does not allow the claim %q; GET /v1/profiles lists what it allows", clip(c.Name)))
		case twin:
			return nil, invalid("the claims %q and %q differ in case only, and some readers take one for the other", clip(before), clip(c.Name))
		}
	}
	for _, name := range r.require {
		if raw := req.claim(name); raw == nil || string(raw) == "null" {
			return nil, invalid("the profile requires the claim %q", name)
		}
	}
	if len(r.add) == 0 {
		return req.claims, nil
	}
	out := append(slices.Clone(r.add), req.claims...)
	sortClaims(out)
	return out, nil
}

// twins finds names that differ in case only. Few are compared with each
// other; for many there is a table, so that a request full of names stays cheap.
type twins map[string]string

func newTwins(names int) twins {
	const few = 8
	if names <= few {
		return nil
	}
	return make(twins, names)
}

func (t twins) find(before []Claim, name string) (string, bool) {
	if t != nil {
		folded := fold(name)
		twin, found := t[folded]
		t[folded] = name
		return twin, found
	}
	for _, c := range before {
		if strings.EqualFold(c.Name, name) {
			return c.Name, true
		}
	}
	return "", false
}

// isText reports whether a JSON value is a string that is not empty.
func isText(raw json.RawMessage) bool {
	var s string
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil && s != ""
}

// payload is the claims set (RFC 7519 §4): keyturn's own claims, then the
// others. Times are seconds since 1970.
type payload struct {
	Issuer, Subject                string
	Audience                       []string
	ExpiresAt, NotBefore, IssuedAt int64
	ID                             string
}

// encode appends the claims set as one line of JSON.
func (p *payload) encode(doc []byte, extra []Claim) ([]byte, error) {
	doc = appendText(append(doc, `{"iss":`...), p.Issuer)
	doc = appendText(append(doc, `,"sub":`...), p.Subject)
	doc = append(doc, `,"aud":[`...)
	for i, a := range p.Audience {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = appendText(doc, a)
	}
	doc = strconv.AppendInt(append(doc, `],"exp":`...), p.ExpiresAt, 10)
	doc = strconv.AppendInt(append(doc, `,"nbf":`...), p.NotBefore, 10)
	doc = strconv.AppendInt(append(doc, `,"iat":`...), p.IssuedAt, 10)
	doc = appendText(append(doc, `,"jti":`...), p.ID)
	for _, c := range extra {
		if len(c.Value) == 0 {
			return nil, errors.New("encode claims: one has no value")
		}
		doc = append(appendText(append(doc, ','), c.Name), ':')
		doc = append(doc, c.Value...)
	}
	return append(doc, '}'), nil
}

// appendText writes a JSON string. Most hold nothing that needs an escape.
func appendText(doc []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(doc, quoted...)
		}
	}
	doc = append(append(doc, '"'), s...)
	return append(doc, '"')
}
