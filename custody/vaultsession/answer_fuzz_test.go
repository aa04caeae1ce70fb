package vaultsession

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// FuzzAnswer: whatever is at Vault's address, an answer is a reply or an error
// of keyring's kinds, the error is one bounded line without the token, and no
// Retry-After keeps us away for more than an hour.
func FuzzAnswer(f *testing.F) {
	const secret = "hvs.canary-of-the-fuzz-test"
	f.Add(200, "", []byte(`{"data":{"data":{"manifest":"{}"},"metadata":{"version":3}}}`))
	f.Add(404, "", []byte(`{"errors":[]}`))
	f.Add(403, "", []byte(`{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`))
	f.Add(429, "99999999999999999999", []byte(`{"errors":["quota"]}`))
	f.Add(503, " 7 ", []byte(`{"errors":["Vault is sealed `+secret+`"]}`))
	f.Add(500, "-1", []byte("\x00\xff<html>"+secret))
	f.Add(200, "", []byte(`{"auth":{"client_token":"t","lease_duration":-9223372036854775808}}`))
	var status int
	var retry string
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	s, err := New(Config{Address: server.URL, Auth: Auth{Method: MethodToken, Token: given(secret)}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.transport.CloseIdleConnections)
	s.settle(token{value: secret})
	f.Fuzz(func(t *testing.T, code int, after string, doc []byte) {
		if code < 200 || code > 599 || code == 204 || code >= 300 && code < 400 || strings.ContainsAny(after, "\r\n\x00") {
			return // no answer that HTTP could bring, or one to follow
		}
		status, retry, body = code, after, doc
		reply, err := s.send(t.Context(), s.client, Request{Method: "GET", Path: "kt/data/issuers/main/manifest"})
		if (reply == nil) == (err == nil) {
			t.Fatalf("reply %v, error %v", reply, err)
		}
		if err == nil {
			if got, err := grantedToken(reply, time.Now()); err == nil && got.value == "" {
				t.Errorf("%+v was taken as a token", got)
			}
			return
		}
		if !errors.Is(err, keyring.ErrUnavailable) && !errors.Is(err, keyring.ErrDenied) && status != http.StatusBadRequest {
			t.Logf("%d: %v", status, err)
		}
		if said := err.Error(); strings.Contains(said, secret) || strings.ContainsAny(said, "\n\r\x00") || len(said) > 20_000 {
			t.Errorf("%d: the error says %q", status, said)
		}
		if wait := retryAfter(http.Header{"Retry-After": {after}}); wait < 0 || wait > time.Hour {
			t.Errorf("Retry-After %q is %s", after, wait)
		}
	})
}
