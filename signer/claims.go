package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
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
func (r *claimRules) judge(claims map[string]json.RawMessage) ([]Claim, *api.Problem) {
	out := slices.Clone(r.add)
	seen := make(map[string]string, len(claims))
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		char, odd := unprintable(name)
		folded := fold(name)
		before, twin := seen[folded]
		seen[folded] = name
		switch {
		case odd:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the claim %q holds %U, which does not print, and some readers take it for another claim; leave it out", clip(name), char))
		case isOurs(name):
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("keyturn alone writes %s, and %q could be taken for one of them; leave it out of claims", strings.Join(ours, ", "), clip(name)))
		case r.added[folded]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile itself sets the claim %q; leave it out", clip(name)))
		case !r.any && !r.allowed[name]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile does not allow the claim %q; GET /v1/profiles lists what it allows", clip(name)))
		case twin:
			return nil, invalid("the claims %q and %q differ in case only, and some readers take one for the other", clip(before), clip(name))
		}
		out = append(out, Claim{Name: name, Value: claims[name]})
	}
	for _, name := range r.require {
		if raw, ok := claims[name]; !ok || string(raw) == "null" {
			return nil, invalid("the profile requires the claim %q", name)
		}
	}
	slices.SortFunc(out, func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// isText reports whether a JSON value is a string that is not empty.
func isText(raw json.RawMessage) bool {
	var s string
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil && s != ""
}

// payload is the claims set (RFC 7519 §4): keyturn's own claims, then the others.
type payload struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	ExpiresAt int64    `json:"exp"`
	NotBefore int64    `json:"nbf"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
}

func (p payload) encode(extra []Claim) ([]byte, error) {
	doc, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode claims: %w", err)
	}
	if len(extra) == 0 {
		return doc, nil
	}
	doc = doc[:len(doc)-1] // without the closing brace
	for _, c := range extra {
		name, err := json.Marshal(c.Name)
		if err != nil {
			return nil, fmt.Errorf("encode claim name: %w", err)
		}
		if len(c.Value) == 0 {
			return nil, errors.New("encode claims: one has no value")
		}
		doc = append(append(doc, ','), name...)
		doc = append(append(doc, ':'), c.Value...)
	}
	return append(doc, '}'), nil
}
