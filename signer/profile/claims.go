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
	// add is sorted by name; added holds its names.
	add   []request.Claim
	added nameSet
	// meant are the claims that the profile says something about, be it in these
	// lists, by its typ or in its condition; inner the names that its condition
	// looks for within claims.
	meant, inner nameSet
}

// compileClaims takes the lists; special are the claims that have a meaning by
// the profile's typ.
func compileClaims(cfg Claims, special []string) (claimRules, []error) {
	rules := claimRules{
		any: slices.Contains(cfg.Allow, AnyName), allowed: map[string]bool{},
		require: cfg.Require, add: slices.Clone(cfg.Add), added: nameSet{}, meant: nameSet{}, inner: nameSet{},
	}
	for _, name := range special {
		rules.meant.add(name)
	}
	var errs []error
	listed := map[string]bool{}
	check := func(list, name string) {
		r, odd := unprintable(name)
		before := rules.meant.twin(name)
		again := listed[name]
		listed[name] = true
		rules.meant.add(name)
		switch {
		case fold(name) == "":
			errs = append(errs, fmt.Errorf("%s: a claim needs a name, and %q is none", list, name))
		case odd:
			errs = append(errs, fmt.Errorf("%s: %q holds %U, which does not print; leave it out", list, name, r))
		case isOurs(name):
			errs = append(errs, fmt.Errorf("%s: %q is written by keyturn alone; leave it out", list, name))
		case again:
			errs = append(errs, fmt.Errorf("%s: %q appears twice in claims.allow and claims.add", list, name))
		case before != "":
			errs = append(errs, fmt.Errorf("%s: %q and %q differ in case only, and some readers take one for the other", list, before, name))
		}
	}
	for _, name := range cfg.Allow {
		check("claims.allow", name)
		if name != AnyName { // which is no claim's name
			rules.allowed[name] = true
		}
	}
	for _, c := range cfg.Add {
		check("claims.add", c.Name)
		rules.added.add(c.Name)
		if c.Name == AnyName {
			errs = append(errs, fmt.Errorf("claims.add: %q is not a name", AnyName))
		}
		if err := strictjson.Check(c.Value); err != nil {
			errs = append(errs, fmt.Errorf("claims.add: value of %q: %w", c.Name, err))
		} else if prob := inspect(c.Name, c.Value, nil); prob != nil {
			errs = append(errs, fmt.Errorf("claims.add: %s", prob.Detail))
		}
	}
	for i, name := range cfg.Require {
		r, odd := unprintable(name)
		before := rules.meant.twin(name)
		rules.meant.add(name)
		switch {
		case odd:
			errs = append(errs, fmt.Errorf("claims.require: %q holds %U, which does not print; leave it out", name, r))
		case isOurs(name):
			errs = append(errs, fmt.Errorf("claims.require: %q is written by keyturn alone; leave it out", name))
		case fold(name) == "" || name == AnyName:
			errs = append(errs, fmt.Errorf("claims.require: %q is not a name", name))
		case slices.Contains(cfg.Require[:i], name):
			errs = append(errs, fmt.Errorf("claims.require: %q appears twice", name))
		case rules.added[fold(name)] != nil:
			errs = append(errs, fmt.Errorf("claims.require: %q is in claims.add, so no request may name it", name))
		case !rules.any && !rules.allowed[name]:
			errs = append(errs, fmt.Errorf("claims.require: %q is not in claims.allow, so no request could name it", name))
		case before != "":
			errs = append(errs, fmt.Errorf("claims.require: %q and %q differ in case only, and some readers take one for the other", before, name))
		}
	}
	slices.SortStableFunc(rules.add, request.Claim.Compare)
	return rules, errs
}

// judge returns what the token carries beside keyturn's own claims, sorted by
// name, each value byte by byte as it came.
func (r *claimRules) judge(req *request.Request) ([]request.Claim, *api.Problem) {
	var names twins
	for _, c := range req.Claims {
		if prob := r.judgeName(c.Name); prob != nil {
			return nil, prob
		}
		if before, twin := names.find(c.Name); twin {
			return nil, request.Invalid("the claims %q and %q differ in case only, and some readers take one for the other", request.Clip(before), request.Clip(c.Name))
		}
		if prob := inspect(c.Name, c.Value, r.inner); prob != nil {
			return nil, prob
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

// judgeName refuses a name that is not allowed, or that some readers take for
// another one that means something: what was judged has to be what is read.
func (r *claimRules) judgeName(name string) *api.Problem {
	if r.allowed[name] {
		return nil // it was looked at when the profile was loaded
	}
	if char, odd := unprintable(name); odd {
		return forbiddenClaim("the claim %q holds %U, which does not print, and some readers take it for another claim; leave it out", request.Clip(name), char)
	}
	var space [foldSpace]byte
	folded := appendFold(space[:0], name)
	switch {
	case foldedOurs[string(folded)]:
		return forbiddenClaim("keyturn alone writes %s, and %q could be taken for one of them; leave it out of claims", strings.Join(ours, ", "), request.Clip(name))
	case r.added[string(folded)] != nil:
		return forbiddenClaim("the profile itself sets the claim %q; leave it out", request.Clip(name))
	case !r.any:
		return forbiddenClaim("the profile does not allow the claim %q; GET /v1/profiles lists what it allows", request.Clip(name))
	case len(folded) == 0:
		return forbiddenClaim("a claim needs a name, and %q is none; leave it out", request.Clip(name))
	}
	like := r.meant[string(folded)]
	if len(like) == 0 { // the condition's text does not always tell where a name stands
		like = r.inner[string(folded)]
	}
	if len(like) > 0 && !slices.Contains(like, name) {
		return forbiddenClaim("some readers take the claim %q for %q, which the profile or its condition is about; write it so, or leave it out", request.Clip(name), like[0])
	}
	return nil
}

// isText reports whether a JSON value is a string that is not empty.
func isText(raw json.RawMessage) bool {
	var s string
	return len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil && s != ""
}
