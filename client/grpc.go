package client

import (
	"context"
	"fmt"
)

// GRPC gives out a source's tokens as google.golang.org/grpc/credentials wants
// them (PerRPCCredentials), for grpc.WithPerRPCCredentials and
// grpc.PerRPCCredentials. gRPC closes no source and retries no call because a
// token was refused.
type GRPC struct {
	Source *Source
	// AllowPlaintext sends tokens over connections without TLS: everybody on the
	// way can read them and use them.
	AllowPlaintext bool
}

// GetRequestMetadata implements PerRPCCredentials.
func (g GRPC) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	resp, err := g.Source.Token(ctx)
	if err != nil {
		return nil, fmt.Errorf("token for the call: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + resp.Token}, nil
}

// RequireTransportSecurity implements PerRPCCredentials.
func (g GRPC) RequireTransportSecurity() bool { return !g.AllowPlaintext }
