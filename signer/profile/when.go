package profile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/condition"
)

// compileWhen makes the condition ready. Claims that no token of the profile
// can carry are refused by name: a condition over one would never be true, or,
// negated, always. The same is true of a socket that there is not.
func (p *Profile) compileWhen(sockets []string) []error {
	if p.When == "" {
		return nil
	}
	var err error
	p.when, err = condition.Compile(p.When, condition.Known{Claim: p.carries, Socket: func(name string) error {
		if len(sockets) == 0 || slices.Contains(sockets, name) {
			return nil
		}
		return fmt.Errorf("there is no sign socket %q: listen.sign has %s", name, keyring.Quoted(sockets))
	}})
	if err != nil {
		return eachUnder("when", err)
	}
	for _, name := range p.when.Names().Inner {
		p.claims.inner.add(name)
	}
	return nil
}

// carries says why a token of the profile never has a claim, as a condition may
// see it, or why it could have another one that is taken for it.
func (p *Profile) carries(name string) error {
	twin := p.claims.meant.twin(name)
	p.claims.meant.add(name)
	switch {
	case name == "sub":
		return errors.New("keyturn writes it; write request.subject")
	case name == "aud":
		return errors.New("keyturn writes it; write request.audience")
	case isOurs(name):
		return errors.New("keyturn writes it, after the condition was asked; leave it out")
	case !p.claims.any && !p.claims.allowed[name] && !slices.Contains(p.claims.added[fold(name)], name):
		return errors.New("no token of this profile carries it; name it in claims.allow or claims.add")
	case twin != "":
		return fmt.Errorf("the profile is about %q, too, and some readers take one for the other", twin)
	}
	return nil
}

// eachUnder names the setting in each of the errors that were joined.
func eachUnder(setting string, err error) []error {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = joined.Unwrap()
	}
	for i, e := range list {
		list[i] = fmt.Errorf("%s: %w", setting, e)
	}
	return list
}

// Meets asks the profile's condition about a request that is sound in all
// else. A condition that fails refuses as one that is false does, and the caller
// cannot tell the two apart: the reason is for the record. It is `forbidden`, with a
// text of its own: GET /v1/profiles lists the profile and its condition to this
// caller, so there is nothing to hide about its being there.
func (p *Profile) Meets(c Caller, want *Grant) (reason string, prob *api.Problem) {
	if p.when == nil {
		return "", nil
	}
	claims := want.Claims // not want itself, which would escape to the heap for every profile
	allowed, err := p.when.Eval(condition.Input{
		Claims: func(yield func(string, []byte) bool) {
			for _, c := range claims {
				if !yield(c.Name, c.Value) {
					return
				}
			}
		},
		Peer:    seen(c),
		Request: condition.Request{Profile: p.Name, Subject: want.Subject, Audience: want.Audience, TTLSeconds: want.TTL},
	})
	switch {
	case err != nil:
		reason = "the condition of the profile failed: " + err.Error()
	case !allowed:
		reason = "the condition of the profile is false"
	default:
		return "", nil
	}
	return reason, api.NewProblem(api.Forbidden, "the condition of this profile does not allow this request; GET /v1/profiles shows it, and the daemon's audit log says why")
}

// seen is the caller as a condition may see it: a group that may stand for any
// of another user namespace is none.
func seen(c Caller) condition.Peer {
	p := condition.Peer{UID: c.Peer.UID, GID: -1, Socket: c.Socket, Groups: make([]uint32, 0, 1+len(c.Peer.Groups))}
	if !isNobody(c.Peer.GID) {
		p.GID = int64(c.Peer.GID)
		p.Groups = append(p.Groups, c.Peer.GID)
	}
	for _, g := range c.Peer.Groups {
		if !isNobody(g) && g != c.Peer.GID {
			p.Groups = append(p.Groups, g)
		}
	}
	return p
}
