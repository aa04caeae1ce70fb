package profile

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/request"
)

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

func (p *Profile) compileSubject() []error {
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

func (p *Profile) judgeSubject(asked string, peer unixsock.Peer) (string, *api.Problem) {
	subject := asked
	switch {
	case len(asked) > maxText:
		return "", request.Invalid("subject has %d bytes: at most %d", len(asked), maxText)
	case p.subject != nil && asked == "":
		return "", request.Invalid("subject is missing: this profile lets the request choose it")
	case p.subject != nil && !p.subject.MatchString(asked):
		return "", request.Invalid("subject does not match the profile's pattern %q", request.Clip(p.Subject.Pattern))
	case p.subject == nil && p.Subject.Fixed != "":
		subject = p.Subject.Fixed
	case p.subject == nil && isNobody(peer.GID) && strings.Contains(p.Subject.FromPeer, "{gid}"):
		return "", request.Invalid("the profile makes the subject of the caller's gid, and this caller has none that is known here")
	case p.subject == nil:
		subject = p.fromPeer(peer)
	}
	if asked != "" && asked != subject {
		return "", request.Invalid("subject is set by the profile; leave it out")
	}
	if r, odd := unprintable(subject); odd {
		return "", request.Invalid("subject holds %U, which does not print; leave it out", r)
	}
	return subject, nil
}

// fromPeer fills the template of the profile's subject.
func (p *Profile) fromPeer(peer unixsock.Peer) string {
	return strings.NewReplacer(
		"{uid}", strconv.FormatUint(uint64(peer.UID), 10),
		"{gid}", strconv.FormatUint(uint64(peer.GID), 10),
	).Replace(p.Subject.FromPeer)
}
