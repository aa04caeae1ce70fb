package vaultsession

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// A Vault, or what stands in its place, that repeats what it was sent gets no
// secret into an error.
func TestErrorsDoNotRepeatTheRequest(t *testing.T) {
	const token, pem = "hvs.hunter2token", "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIE\nhunter2hunter2\n-----END PRIVATE KEY-----\n"
	key := Request{Method: "PUT", Path: "kv/data/x", Body: map[string]any{"options": map[string]int{"cas": 1}, "data": map[string]string{"private": pem}}}
	login := Request{Method: "PUT", Path: "auth/approle/login", Body: map[string]string{"role_id": "r", "secret_id": "<secret>&hunter2"}}
	list := Request{Method: "PUT", Path: "x", Body: map[string]any{"a": []string{"hunter2-in-a-list"}}}
	for name, tc := range map[string]struct {
		req  Request
		says func(r *http.Request, body string) string
	}{
		"the body as it is":      {key, func(_ *http.Request, body string) string { return "bad request: " + body }},
		"the key decoded":        {key, func(*http.Request, string) string { return "cannot store " + pem }},
		"the key without marks":  {key, func(*http.Request, string) string { return "illegal base64: hunter2hunter2" }},
		"the key quoted":         {key, func(*http.Request, string) string { return fmt.Sprintf("value %q", pem) }},
		"somebody's private key": {list, func(*http.Request, string) string { return "-----BEGIN RSA PRIVATE KEY----- hunter2" }},
		"the token":              {key, func(r *http.Request, _ string) string { return "token " + r.Header.Get("X-Vault-Token") }},
		"the token, of a GET":    {Request{Method: "GET", Path: "x"}, func(r *http.Request, _ string) string { return r.Header.Get("X-Vault-Token") }},
		"a secret id in JSON":    {login, func(_ *http.Request, body string) string { return body }},
		"a secret id":            {login, func(*http.Request, string) string { return "<secret>&hunter2 is unknown" }},
		"in a list":              {list, func(_ *http.Request, body string) string { return body }},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.WriteHeader(400)
				_ = json.NewEncoder(w).Encode(map[string][]string{"errors": {"1 error occurred", tc.says(r, string(body))}})
			})
			s.settle(plain(token))
			_, err := s.Do(t.Context(), tc.req)
			if err == nil {
				t.Fatal("no error")
			}
			wantLine(t, err, "status 400", "1 error occurred; [withheld: it repeats the request]")
			if out := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(out, "hunter2") || strings.Contains(out, "PRIVATE") {
				t.Errorf("it shows a secret: %s", out)
			}
		})
	}
}

func plain(value string) token { return token{value: value} }

// What is no HTTP is quoted by net/http's errors.
func TestNoHTTPDoesNotRepeatTheRequest(t *testing.T) {
	s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
		conn, _, _ := w.(http.Hijacker).Hijack()
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %s\r\n\r\n", r.Header.Get("X-Vault-Token"))
		conn.Close()
	})
	s.settle(plain("hvs.hunter2token"))
	_, err := s.Do(t.Context(), Request{Method: "PUT", Path: "x", Body: 1})
	if err == nil || !Uncertain(err) {
		t.Fatalf("Do = %v, want an uncertain error", err)
	}
	wantLine(t, err, "PUT x: [withheld")
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("it shows the token: %v", err)
	}
}

// A redirect must not take the token and a private half over the network in
// the clear, wherever it comes from.
func TestRedirectInTheClear(t *testing.T) {
	for name, tc := range map[string]struct {
		to       string
		insecure bool
		follows  bool
	}{
		"another host":             {"http://vault.example:8200", false, false},
		"an address":               {"http://192.0.2.1", false, false},
		"another scheme in Upper":  {"HTTP://vault.example", false, false},
		"this host":                {"http://127.0.0.1:8200", false, true},
		"another host, and may be": {"http://vault.example:8200", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			var arrived atomic.Int32
			far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				arrived.Add(1)
				_, _ = io.WriteString(w, `{}`)
			}))
			t.Cleanup(far.Close)
			near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", tc.to+r.URL.Path)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			t.Cleanup(near.Close)
			s, err := New(Config{Address: near.URL, Timeout: 3 * time.Second, Insecure: tc.insecure, Auth: Auth{Method: MethodToken, Token: given("t")}})
			if err != nil {
				t.Fatal(err)
			}
			s.settle(plain("hvs.hunter2token"))
			t.Cleanup(s.transport.CloseIdleConnections)
			// Whatever is not the near one leads to the far one.
			s.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				if addr != near.Listener.Addr().String() {
					addr = far.Listener.Addr().String()
				}
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			_, err = s.Do(t.Context(), Request{Method: "PUT", Path: "x", Body: map[string]string{"private": "hunter2hunter2"}})
			if n := arrived.Load(); (n > 0) != tc.follows || (err == nil) != tc.follows {
				t.Fatalf("%d requests arrived, Do = %v", n, err)
			}
			if err != nil {
				wantLine(t, err, "vault redirects to http://", "in the clear")
				if !Uncertain(err) || !errors.Is(err, keyring.ErrUnavailable) {
					t.Errorf("%v: what the near one did is not known", err)
				}
			}
		})
	}
}
