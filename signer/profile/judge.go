package profile

import (
	"fmt"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/request"
)

// Bounds of one request, beside the size of its body.
const (
	maxText      = 1024 // bytes of a subject or an audience
	maxAudiences = 100
)

// Grant is what a caller may have: everything about it was judged, but for the
// condition and what depends on the key.
type Grant struct {
	Subject  string
	Audience []string
	TTL      int64 // seconds
	// Claims are those beside keyturn's own, sorted by name, each value byte by
	// byte as it came.
	Claims []request.Claim
}

// Judge decides on all that does not depend on the key, for a caller whom the
// profile allows: invalid_request, claim_forbidden or ttl_too_long, with a detail
// that says what would do.
func (p *Profile) Judge(req *request.Request, peer unixsock.Peer) (Grant, *api.Problem) {
	var out Grant
	var prob *api.Problem
	if out.Subject, prob = p.judgeSubject(req.Subject, peer); prob != nil {
		return out, prob
	}
	if out.Audience, prob = p.judgeAudience(req.Audience); prob != nil {
		return out, prob
	}
	out.TTL = p.defaultTTL
	if req.HasTTL {
		out.TTL = req.TTL
	}
	switch {
	case out.TTL < 1:
		return out, request.Invalid("ttl_seconds is %d: at least 1; leave it out for the profile's default of %d", out.TTL, p.defaultTTL)
	case out.TTL > p.maxTTL:
		return out, api.NewProblem(api.TTLTooLong, fmt.Sprintf("ttl_seconds is %d: the profile allows %d at most", out.TTL, p.maxTTL))
	}
	if out.Claims, prob = p.claims.judge(req); prob != nil {
		return out, prob
	}
	if p.accessToken {
		for _, c := range req.Claims {
			if want := accessClaim(c.Name, c.Value); want != "" {
				return out, request.Invalid("claim %s: it has to be %s (RFC 9068 §2.2)", c.Name, want)
			}
		}
	}
	return out, nil
}
