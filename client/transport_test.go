package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
)

// service is an HTTP service that remembers what it was sent.
type service struct {
	*httptest.Server
	auth   []string
	bodies []string
	// refuse says which calls get 401.
	refuse func(call int) bool
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{refuse: func(int) bool { return false }}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.auth, s.bodies = append(s.auth, r.Header.Get("Authorization")), append(s.bodies, string(body))
		if to := r.URL.Query().Get("to"); to != "" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
			return
		}
		if s.refuse(len(s.auth)) {
			http.Error(w, "who are you", http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// calling is an HTTP client with tokens of a fake daemon.
func calling(t *testing.T, kt *clienttest.Server) (*http.Client, *client.Transport) {
	t.Helper()
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	tr := &client.Transport{Source: kt.Client().Source(api.SignRequest{Profile: "p", Subject: "svc"}), Base: base}
	return &http.Client{Transport: tr}, tr
}

func do(t *testing.T, hc *http.Client, req *http.Request) int {
	t.Helper()
	resp, err := hc.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}

func request(t *testing.T, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTransport(t *testing.T) {
	kt, s := clienttest.New(t, clienttest.Config{}), newService(t)
	hc, _ := calling(t, kt)
	req := request(t, s.URL, strings.NewReader("hello"))
	if status := do(t, hc, req); status != 200 || req.Header.Get("Authorization") != "" {
		t.Errorf("status %d, the program's request was changed: %v", status, req.Header)
	}
	raw, ok := strings.CutPrefix(s.auth[0], "Bearer ")
	if _, err := verify(t, kt, raw); !ok || err != nil || s.bodies[0] != "hello" {
		t.Errorf("%q %q: %v", s.auth[0], s.bodies[0], err)
	}
	do(t, hc, request(t, s.URL, nil))
	if s.auth[1] != s.auth[0] || len(kt.Requests()) != 1 {
		t.Errorf("another token for the second request")
	}
	own := request(t, s.URL, nil)
	own.Header.Set("Authorization", "Basic eDp5")
	if do(t, hc, own); s.auth[2] != "Basic eDp5" {
		t.Errorf("the request's own header became %q", s.auth[2])
	}
}

// closing tells whether a body was closed.
type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestTransportKeepsTheToken(t *testing.T) {
	kt, s, other := clienttest.New(t, clienttest.Config{}), newService(t), newService(t)
	hc, tr := calling(t, kt)
	body := &closing{Reader: strings.NewReader("x")}
	req := request(t, "http://tokens.example.com/", body)
	resp, err := hc.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, client.ErrPlaintext) || !body.closed || len(kt.Requests()) != 0 {
		t.Errorf("plain http: %v, body closed %v, %d tokens", err, body.closed, len(kt.Requests()))
	}
	// A redirect within the host keeps the token, to another one it does not.
	do(t, hc, request(t, s.URL+"/?to=/again", nil))
	if len(s.auth) != 2 || s.auth[1] == "" || s.auth[1] != s.auth[0] {
		t.Errorf("within the host: %d calls", len(s.auth))
	}
	do(t, hc, request(t, s.URL+"/?to="+other.URL, nil))
	if len(other.auth) != 1 || other.auth[0] != "" {
		t.Errorf("the other host got %q", other.auth)
	}
	// Without a token nothing is sent.
	kt.Fail(api.Forbidden)
	tr.Source = kt.Client().Source(api.SignRequest{Profile: "p"})
	resp, err = hc.Do(request(t, s.URL, nil))
	if err == nil {
		_ = resp.Body.Close()
	}
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.Forbidden || len(s.auth) != 3 {
		t.Errorf("without a token: %v", err)
	}
	tr.AllowPlaintext = true
	if _, err := hc.Do(request(t, "http://tokens.example.com/", nil)); errors.Is(err, client.ErrPlaintext) { // it never gets one
		t.Errorf("allowed: %v", err)
	}
}

// forgetful is a RoundTripper whose answers do not name their requests, as its
// contract allows.
type forgetful struct{ http.RoundTripper }

func (f forgetful) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f.RoundTripper.RoundTrip(req)
	if resp != nil {
		resp.Request = nil
	}
	return resp, err
}

// TestTransportRedirects: where a redirect has led away, the token does not
// follow, not to the first host again either, whatever lies below.
func TestTransportRedirects(t *testing.T) {
	for name, below := range map[string]func(http.RoundTripper) http.RoundTripper{
		"net/http":  func(rt http.RoundTripper) http.RoundTripper { return rt },
		"forgetful": func(rt http.RoundTripper) http.RoundTripper { return forgetful{rt} },
	} {
		t.Run(name, func(t *testing.T) {
			kt, s, other := clienttest.New(t, clienttest.Config{}), newService(t), newService(t)
			hc, tr := calling(t, kt)
			tr.Base = below(tr.Base)
			do(t, hc, request(t, s.URL+"/?to=/a", nil))
			if len(s.auth) != 2 || s.auth[0] == "" || s.auth[1] != s.auth[0] {
				t.Errorf("within the host: %d calls", len(s.auth))
			}
			back := other.URL + "/?to=" + url.QueryEscape(s.URL+"/delete?all=1")
			do(t, hc, request(t, s.URL+"/?to="+url.QueryEscape(back), nil))
			if len(other.auth) != 1 || other.auth[0] != "" || len(s.auth) != 4 || s.auth[2] == "" || s.auth[3] != "" {
				t.Errorf("there and back: %d calls at the other host, %d at the first; tokens there %t, and back %t", len(other.auth), len(s.auth), other.auth[0] != "", s.auth[3] != "")
			}
		})
	}
	// From https to http at the same host, nobody knows who listens.
	down := newService(t)
	hop := request(t, down.URL, nil)
	hop.Response = &http.Response{Request: request(t, "https://"+hop.URL.Host, nil)}
	_, through := calling(t, clienttest.New(t, clienttest.Config{}))
	if resp, err := through.RoundTrip(hop); err != nil || resp.Body.Close() != nil || down.auth[0] != "" {
		t.Errorf("a downgrade: %v, a token %t", err, len(down.auth) > 0 && down.auth[0] != "")
	}
	// A request that comes with a redirect from nowhere gets none.
	kt, s := clienttest.New(t, clienttest.Config{}), newService(t)
	_, tr := calling(t, kt)
	req := request(t, s.URL, nil)
	req.Response = &http.Response{}
	resp, err := tr.RoundTrip(req)
	if err != nil || resp.Body.Close() != nil || s.auth[0] != "" {
		t.Errorf("from nowhere: %v, a token %t", err, s.auth[0] != "")
	}
}

// TestTransport401: a token that is refused is exchanged once, where the body
// can be sent again.
func TestTransport401(t *testing.T) {
	kt, s := clienttest.New(t, clienttest.Config{}), newService(t)
	hc, tr := calling(t, kt)
	age := func() { // so that it is old enough to blame
		client.Age(tr.Source, 6*time.Second)
	}
	do(t, hc, request(t, s.URL, nil))
	s.refuse = func(call int) bool { return call == 2 }
	age()
	if status := do(t, hc, request(t, s.URL, strings.NewReader("body"))); status != 200 || len(s.auth) != 3 || s.auth[2] == s.auth[1] || s.bodies[2] != "body" {
		t.Errorf("status %d, %d calls, bodies %q", status, len(s.auth), s.bodies)
	}
	// The new one is refused as well: the caller hears it, nothing goes on.
	s.refuse = func(int) bool { return true }
	if status := do(t, hc, request(t, s.URL, nil)); status != 401 || len(s.auth) != 4 || len(kt.Requests()) != 2 {
		t.Errorf("status %d, %d calls, %d tokens", status, len(s.auth), len(kt.Requests()))
	}
	age()
	once := request(t, s.URL, &closing{Reader: strings.NewReader("once")})
	if status := do(t, hc, once); status != 401 || len(s.auth) != 5 {
		t.Errorf("a body that cannot be sent again: status %d, %d calls", status, len(s.auth))
	}
	// Its token is not used any more, though; and without another one, 401 it is.
	kt.Fail(api.Forbidden)
	if _, err := tr.Source.Token(t.Context()); err == nil {
		t.Error("the refused token is still given out")
	}
}

func TestOAuth2AndGRPC(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{})
	src := kt.Client().Source(api.SignRequest{Profile: "p", Subject: "svc"})
	var ts oauth2.TokenSource = src.OAuth2(t.Context())
	tok, err := ts.Token()
	if err != nil || !tok.Valid() || tok.Type() != "Bearer" {
		t.Fatalf("%+v %v", tok, err)
	}
	if v, err := verify(t, kt, tok.AccessToken); err != nil || !v.Claims.ExpiresAt.Equal(tok.Expiry) {
		t.Errorf("%v, expiry %s", err, tok.Expiry)
	}
	g := client.GRPC{Source: src}
	md, err := g.GetRequestMetadata(t.Context(), "uri")
	if err != nil || md["authorization"] != "Bearer "+tok.AccessToken || !g.RequireTransportSecurity() || (client.GRPC{AllowPlaintext: true}).RequireTransportSecurity() {
		t.Errorf("%v %v", md, err)
	}
	kt.Fail(api.Forbidden)
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	fresh := kt.Client().Source(api.SignRequest{Profile: "p"})
	if _, err := fresh.OAuth2(dead).Token(); !errors.Is(err, context.Canceled) {
		t.Errorf("context ended: %v", err)
	}
	var p *api.Problem
	if _, err := (client.GRPC{Source: fresh}).GetRequestMetadata(t.Context()); !errors.As(err, &p) {
		t.Errorf("%v", err)
	}
}
