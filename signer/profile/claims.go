package profile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/signer/request"
)

const clientID = "client_id"

// claimRules are a profile's claims, ready to judge a request's.
type claimRules struct {
	any     bool
	allowed map[string]bool
	require []string
	// add is sorted by name; added holds the folded names.
	add   []request.Claim
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
	slices.SortStableFunc(rules.add, request.Claim.Compare)
	return rules, errs
}

// judge returns what the token carries beside keyturn's own claims, sorted by
// name, each value byte by byte as it came.
func (r *claimRules) judge(req *request.Request) ([]request.Claim, *api.Problem) {
	twins := newTwins(len(req.Claims))
	for i, c := range req.Claims {
		before, twin := twins.find(req.Claims[:i], c.Name)
		char, odd := unprintable(c.Name)
		switch {
		case odd:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the claim %q holds %U, which does not print, and some readers take it for another claim; leave it out", request.Clip(c.Name), char))
		case isOurs(c.Name):
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("keyturn alone writes %s, and %q could be taken for one of them; leave it out of claims", strings.Join(ours, ", "), request.Clip(c.Name)))
		case len(r.added) > 0 && r.added[fold(c.Name)]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile itself sets the claim %q; leave it out", request.Clip(c.Name)))
		case !r.any && !r.allowed[c.Name]:
			return nil, api.NewProblem(api.ClaimForbidden, fmt.Sprintf("the profile does not allow the claim %q; GET /v1/profiles lists what it allows", request.Clip(c.Name)))
		case twin:
			return nil, request.Invalid("the claims %q and %q differ in case only, and some readers take one for the other", request.Clip(before), request.Clip(c.Name))
		}
	}
	for _, name := range r.require {
		if raw := req.Claim(name); raw == nil || string(raw) == "null" {
			return nil, request.Invalid("the profile requires the claim %q", name)
		}
	}
	if len(r.add) == 0 {
		return req.Claims, nil
	}
	out := append(slices.Clone(r.add), req.Claims...)
	slices.SortFunc(out, request.Claim.Compare)
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

func (t twins) find(before []request.Claim, name string) (string, bool) {
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
