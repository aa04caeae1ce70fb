package signer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// Bounds of one request, beside the size of its body.
const (
	maxName      = 128  // bytes of a profile's name
	maxText      = 1024 // bytes of a subject or an audience
	maxAudiences = 100
)

// request is what a caller may have: everything about it was judged.
type request struct {
	subject  string
	audience []string
	ttl      int64 // seconds
	claims   []Claim
}

// judge decides on all that does not depend on the key.
func (p *profile) judge(req *asked, peer unixsock.Peer) (request, *api.Problem) {
	var out request
	var prob *api.Problem
	if out.subject, prob = p.judgeSubject(req.subject, peer); prob != nil {
		return out, prob
	}
	if out.audience, prob = p.judgeAudience(req.audience); prob != nil {
		return out, prob
	}
	out.ttl = p.defaultTTL
	if req.hasTTL {
		out.ttl = req.ttl
	}
	switch {
	case out.ttl < 1:
		return out, invalid("ttl_seconds is %d: at least 1; leave it out for the profile's default of %d", out.ttl, p.defaultTTL)
	case out.ttl > p.maxTTL:
		return out, api.NewProblem(api.TTLTooLong, fmt.Sprintf("ttl_seconds is %d: the profile allows %d at most", out.ttl, p.maxTTL))
	}
	if out.claims, prob = p.claims.judge(req); prob != nil {
		return out, prob
	}
	if p.accessToken {
		for _, c := range req.claims {
			if want := accessClaim(c.Name, c.Value); want != "" {
				return out, invalid("claim %s: it has to be %s (RFC 9068 §2.2)", c.Name, want)
			}
		}
	}
	return out, nil
}

func (p *profile) judgeSubject(asked string, peer unixsock.Peer) (string, *api.Problem) {
	subject := asked
	switch {
	case len(asked) > maxText:
		return "", invalid("subject has %d bytes: at most %d", len(asked), maxText)
	case p.subject != nil && asked == "":
		return "", invalid("subject is missing: this profile lets the request choose it")
	case p.subject != nil && !p.subject.MatchString(asked):
		return "", invalid("subject does not match the profile's pattern %q", clip(p.Subject.Pattern))
	case p.subject == nil && p.Subject.Fixed != "":
		subject = p.Subject.Fixed
	case p.subject == nil && isNobody(peer.GID) && strings.Contains(p.Subject.FromPeer, "{gid}"):
		return "", invalid("the profile makes the subject of the caller's gid, and this caller has none that is known here")
	case p.subject == nil:
		subject = p.fromPeer(peer)
	}
	if asked != "" && asked != subject {
		return "", invalid("subject is set by the profile; leave it out")
	}
	if r, odd := unprintable(subject); odd {
		return "", invalid("subject holds %U, which does not print; leave it out", r)
	}
	return subject, nil
}

func (p *profile) judgeAudience(asked []string) ([]string, *api.Problem) {
	switch {
	case len(asked) > maxAudiences:
		return nil, invalid("audience has %d entries: at most %d", len(asked), maxAudiences)
	case len(asked) == 0 && p.onlyAudience != "":
		return []string{p.onlyAudience}, nil
	case len(asked) == 0 && p.anyAudience:
		return nil, invalid("audience is missing: name who the token is for; this profile allows any")
	case len(asked) == 0:
		return nil, invalid("audience is missing: choose from %s", keyring.Quoted(p.Audiences))
	}
	for i, a := range asked {
		r, odd := unprintable(a)
		switch {
		case a == "":
			return nil, invalid("audience is empty: name who the token is for")
		case len(a) > maxText:
			return nil, invalid("audience has an entry of %d bytes: at most %d", len(a), maxText)
		case odd:
			return nil, invalid("audience %q holds %U, which does not print; leave it out", clip(a), r)
		case slices.Contains(asked[:i], a):
			return nil, invalid("audience names %q twice", clip(a))
		case a == AnyName, !p.anyAudience && !slices.Contains(p.Audiences, a):
			return nil, invalid("audience %q is not one of the profile's; choose from %s", clip(a), keyring.Quoted(p.Audiences))
		}
	}
	return asked, nil
}
