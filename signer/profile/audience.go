package profile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/request"
)

func (p *Profile) compileAudiences() []error {
	var errs []error
	var named []string
	for _, a := range p.Audiences {
		r, odd := unprintable(a)
		switch {
		case a == "":
			errs = append(errs, errors.New("audiences: one is empty"))
		case odd:
			errs = append(errs, fmt.Errorf("audiences: %q holds %U, which does not print; leave it out", a, r))
		case a != AnyName && slices.Contains(named, a):
			errs = append(errs, fmt.Errorf("audiences: %q appears twice", a))
		case a != AnyName:
			named = append(named, a)
		}
	}
	if len(p.Audiences) == 0 {
		errs = append(errs, fmt.Errorf("audiences: none; list who the tokens are for, or %q to let requests name anybody", AnyName))
	}
	if len(named) == 1 {
		p.onlyAudience = named[0]
	}
	return errs
}

func (p *Profile) judgeAudience(asked []string) ([]string, *api.Problem) {
	switch {
	case len(asked) > maxAudiences:
		return nil, request.Invalid("audience has %d entries: at most %d", len(asked), maxAudiences)
	case len(asked) == 0 && p.onlyAudience != "":
		return []string{p.onlyAudience}, nil
	case len(asked) == 0 && p.anyAudience:
		return nil, request.Invalid("audience is missing: name who the token is for; this profile allows any")
	case len(asked) == 0:
		return nil, request.Invalid("audience is missing: choose from %s", keyring.Quoted(p.Audiences))
	}
	for i, a := range asked {
		r, odd := unprintable(a)
		switch {
		case a == "":
			return nil, request.Invalid("audience is empty: name who the token is for")
		case len(a) > maxText:
			return nil, request.Invalid("audience has an entry of %d bytes: at most %d", len(a), maxText)
		case odd:
			return nil, request.Invalid("audience %q holds %U, which does not print; leave it out", request.Clip(a), r)
		case slices.Contains(asked[:i], a):
			return nil, request.Invalid("audience names %q twice", request.Clip(a))
		case a == AnyName, !p.anyAudience && !slices.Contains(p.Audiences, a):
			return nil, request.Invalid("audience %q is not one of the profile's; choose from %s", request.Clip(a), keyring.Quoted(p.Audiences))
		}
	}
	return asked, nil
}
