package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
)

// ErrPlaintext is returned for a request whose token everybody on the way could read.
var ErrPlaintext = errors.New("the token would go over plain http to another host: use https, or set AllowPlaintext")

// Transport is an http.RoundTripper that sends a source's token with every
// request, as Authorization: Bearer (RFC 6750 §2.1).
//
// A request that brings an Authorization of its own keeps it. Where a redirect
// leads to another host, the token does not follow, and from there not back. A
// service that answers 401 is asked once more with a new token, where the old one
// is not young and the body can be sent again (http.Request.GetBody, or none): its
// key may have been revoked.
type Transport struct {
	Source *Source
	// Base sends the requests. [http.DefaultTransport]
	Base http.RoundTripper
	// AllowPlaintext sends tokens over plain http also to other hosts than this
	// one: everybody on the way can read them and use them.
	AllowPlaintext bool
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if req.Header.Get("Authorization") != "" || elsewhere(req) {
		return send(base, req)
	}
	token, err := t.token(req)
	if err != nil {
		if req.Body != nil {
			err = errors.Join(err, req.Body.Close()) // the contract of RoundTripper
		}
		return nil, err
	}
	resp, err := send(base, with(req, token))
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	again := t.again(req, token)
	if again == nil {
		return resp, nil
	}
	// What is left of the first answer is read, so that its connection serves again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close() // its answer is not used
	return send(base, again)
}

// send makes the answer name the request that it is to, where base left it out:
// if it is a redirect, that is how the way is known.
func send(base http.RoundTripper, req *http.Request) (*http.Response, error) {
	resp, err := base.RoundTrip(req)
	if resp != nil && resp.Request == nil {
		resp.Request = req
	}
	return resp, err
}

func (t *Transport) token(req *http.Request) (string, error) {
	if req.URL == nil {
		return "", errors.New("the request has no URL")
	}
	if req.URL.Scheme != "https" && !t.AllowPlaintext && !loopback(req.URL.Hostname()) {
		return "", fmt.Errorf("%s %s: %w", req.Method, req.URL.Redacted(), ErrPlaintext)
	}
	resp, err := t.Source.Token(req.Context())
	if err != nil {
		return "", fmt.Errorf("token for %s %s: %w", req.Method, req.URL.Redacted(), err)
	}
	return resp.Token, nil
}

// again is the request with another token than the one that was refused, nil
// where there is none or the body is gone.
func (t *Transport) again(req *http.Request, refused string) *http.Request {
	t.Source.Invalidate(refused)
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return nil
	}
	resp, err := t.Source.Token(req.Context())
	if err != nil || resp.Token == refused {
		return nil
	}
	out := with(req, resp.Token)
	if req.GetBody != nil {
		if out.Body, err = req.GetBody(); err != nil {
			return nil
		}
	}
	return out
}

// with is a copy of the request with the token: RoundTrippers change no request.
func with(req *http.Request, token string) *http.Request {
	out := req.Clone(req.Context())
	if out.Header == nil {
		out.Header = http.Header{}
	}
	out.Header.Set("Authorization", "Bearer "+token)
	return out
}

// elsewhere reports whether redirects have led the request away from the host
// that the program asked, or from https, at any step: who was asked in between
// has chosen the path. Where the way is not known, they have.
func elsewhere(req *http.Request) bool {
	for req.Response != nil {
		from := req.Response.Request
		if from == nil || from.URL == nil || req.URL == nil ||
			!strings.EqualFold(from.URL.Host, req.URL.Host) || from.URL.Scheme == "https" && req.URL.Scheme != "https" {
			return true
		}
		req = from
	}
	return false
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
}
