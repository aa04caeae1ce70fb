package vaultsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Request is one call of Vault's HTTP API.
type Request struct {
	// Method is GET, LIST, PUT or DELETE.
	Method string
	// Path is without /v1/.
	Path string
	// Body, for PUT, is encoded as JSON.
	Body any
}

// Reply is an answer of status 2xx, or a 404 by which Vault says that there is
// nothing at the path (its body may tell of something that was there).
type Reply struct {
	Status int
	Body   []byte
}

// Missing reports that there is nothing at the path.
func (r *Reply) Missing() bool { return r.Status == http.StatusNotFound }

// maxReply is more than Vault takes for one entry.
const maxReply = 8 << 20

// Do sends a request once, with the session's token, within ctx and the
// timeout. If Vault does not know the token any more, Do waits for the next
// login and sends the request again; nothing else is repeated here, since a
// reply that was lost does not say whether a write was applied (Uncertain).
// Nothing is sent before the time is over that an answer asked to wait for.
func (s *Session) Do(ctx context.Context, req Request) (*Reply, error) {
	if err := s.alone.refusal(time.Now()); err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	reply, err := s.send(ctx, s.client, req)
	if !isInvalidToken(err) {
		return reply, err
	}
	s.Invalidate(err)
	if ended := s.Ready(ctx); ended != nil {
		return nil, ended
	}
	return s.send(ctx, s.client, req)
}

func (s *Session) send(ctx context.Context, client *vaultapi.Client, req Request) (*Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	fault, secrets := &Error{Op: req.Method + " " + req.Path}, secretsOf(client.Token(), req)
	sent := wall()
	resp, err := call(ctx, client, req)
	received := wall()
	if resp == nil {
		fault.cause = secrets.withheldCause(cause(ctx, err))
		return nil, fault
	}
	defer resp.Body.Close()
	body, readErr := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	var refusal *vaultapi.ResponseError
	switch {
	case readErr != nil:
		fault.cause = secrets.withheldCause(cause(ctx, readErr)) // the answer broke off: as if none had come
		return nil, fault
	case len(body) > maxReply:
		fault.cause = fmt.Errorf("an answer of more than %d bytes", maxReply)
		return nil, fault
	case err == nil && resp.StatusCode < 300:
		s.noteClock(resp.Header, sent, received)
		return &Reply{Status: resp.StatusCode, Body: body}, nil
	case errors.As(err, &refusal) && !refusal.RawError:
		s.noteClock(resp.Header, sent, received)
		fault.Messages = clean(secrets.withheld(refusal.Errors))
	}
	fault.Status, fault.retryAfter = resp.StatusCode, retryAfter(resp.Header)
	s.alone.note(fault, time.Now())
	if resp.StatusCode != http.StatusNotFound {
		return nil, fault
	}
	if refusal == nil || refusal.RawError {
		fault.Messages = []string{"the answer is not Vault's; is this address right?"}
		return nil, fault
	}
	if len(fault.Messages) > 0 { // "no handler for route": the mount is missing
		return nil, fault
	}
	return &Reply{Status: resp.StatusCode, Body: body}, nil
}

func call(ctx context.Context, client *vaultapi.Client, req Request) (*vaultapi.Response, error) {
	out := client.NewRequest(req.Method, "/v1/"+req.Path)
	switch req.Method {
	case "GET", "DELETE":
	case "LIST":
		out.Method = http.MethodGet
		out.Params.Set("list", "true")
	case "PUT":
		if err := out.SetJSONBody(req.Body); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("method %s", req.Method)
	}
	//lint:ignore SA1019 Logical().WriteRaw, meant to replace it, sends the body `null` when a standby redirects
	return client.RawRequestWithContext(ctx, out)
}

// cause says what went wrong without repeating the address, and whether it was
// the caller who gave up.
func cause(ctx context.Context, err error) error {
	var inner *url.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, ctxErr) {
		return fmt.Errorf("%w: %w", ctxErr, err)
	}
	return err
}
