package client

import (
	"context"

	"golang.org/x/oauth2"
)

// OAuth2 gives out a source's tokens as golang.org/x/oauth2 wants them. That
// interface has no context, so the one given here bounds every wait; it ends
// what is built on it when it ends.
func (s *Source) OAuth2(ctx context.Context) oauth2.TokenSource { return oauth2Source{ctx, s} }

type oauth2Source struct {
	ctx    context.Context // the interface of x/oauth2 has none
	source *Source
}

// Token implements oauth2.TokenSource.
func (o oauth2Source) Token() (*oauth2.Token, error) {
	resp, err := o.source.Token(o.ctx)
	if err != nil {
		return nil, err
	}
	return &oauth2.Token{AccessToken: resp.Token, TokenType: "Bearer", Expiry: resp.ExpiresAt}, nil
}
