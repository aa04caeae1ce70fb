package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/signer/request"
)

// isAccessToken reports whether a typ is that of RFC 9068, in either form
// (RFC 7515 §4.1.9); media types do not heed case.
func isAccessToken(typ string) bool {
	lower := strings.ToLower(typ)
	return lower == "at+jwt" || lower == "application/at+jwt"
}

// specialClaims are those that mean something by a profile's typ: the ones that
// accessClaim knows.
func specialClaims(typ string) []string {
	if !isAccessToken(typ) {
		return nil
	}
	return []string{clientID, "scope", "acr", "auth_time", "amr", "groups", "roles", "entitlements"}
}

// accessClaim says what a claim of an access token has to be and is not, ""
// where it is fine: client_id (RFC 9068 §2.2), scope (RFC 8693 §4.2),
// auth_time, acr and amr (OpenID Connect Core §2), groups, roles and
// entitlements (RFC 9068 §2.2.3.1, lists as in RFC 7643 §4.1.2).
func accessClaim(name string, raw json.RawMessage) string {
	switch name {
	case clientID, "scope", "acr":
		if !isText(raw) {
			return "a string that is not empty"
		}
	case "auth_time":
		if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] < '0' || raw[0] > '9' {
			return "a time in seconds since 1970, a number"
		}
	case "amr":
		var list []*string
		if json.Unmarshal(raw, &list) != nil || list == nil || slices.Contains(list, nil) {
			return "a list of strings"
		}
	case "groups", "roles", "entitlements":
		if raw = bytes.TrimSpace(raw); len(raw) == 0 || raw[0] != '[' {
			return "a list"
		}
	}
	return ""
}

// checkAccessToken holds a profile against RFC 9068 §2.2. iss, exp, aud, sub,
// iat and jti stand in every token that keyturn signs, aud and sub never empty;
// client_id is the caller's or the profile's to give.
func (p *Profile) checkAccessToken() []error {
	var errs []error
	for _, c := range p.claims.add {
		if want := accessClaim(c.Name, c.Value); want != "" {
			errs = append(errs, fmt.Errorf("claims.add: %s has to be %s (RFC 9068 §2.2)", c.Name, want))
		}
	}
	added := slices.ContainsFunc(p.claims.add, func(c request.Claim) bool { return c.Name == clientID })
	if !added && !slices.Contains(p.Claims.Require, clientID) {
		errs = append(errs, fmt.Errorf("typ: RFC 9068 §2.2 requires the claim client_id of an %s; name it in claims.require and claims.allow, or give it in claims.add", p.Type))
	}
	return errs
}
