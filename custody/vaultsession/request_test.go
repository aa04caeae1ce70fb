package vaultsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
	"github.com/keyturn/keyturn/keyring"
)

// fake is a session, live without Run, that speaks to a handler.
func fake(t *testing.T, timeout time.Duration, h http.HandlerFunc) *Session {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	s, err := New(Config{Address: server.URL, Timeout: timeout, Auth: Auth{Method: MethodToken, Token: given("t")}})
	if err != nil {
		t.Fatal(err)
	}
	s.settle(token{value: "t"})
	t.Cleanup(s.transport.CloseIdleConnections)
	return s
}

func TestWhatAnAnswerMeans(t *testing.T) {
	sealed := `{"errors":["Vault is sealed"]}`
	for name, tc := range map[string]struct {
		status    int
		header    string // Retry-After
		body      string
		kind      error // keyring's, nil for none
		uncertain bool
		retry     time.Duration
		says      string
	}{
		"cas mismatch":       {400, "", `{"errors":["check-and-set parameter did not match the current version"]}`, nil, false, 0, "check-and-set"},
		"a mount just made":  {400, "", `{"errors":["Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will resume service shortly."]}`, keyring.ErrUnavailable, false, 0, "Upgrading"},
		"denied":             {403, "", `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`, keyring.ErrDenied, false, 0, "does the token's policy allow it?"},
		"no such mount":      {404, "", `{"errors":["no handler for route \"x\". route entry not found."]}`, keyring.ErrUnavailable, false, 0, "is the mount there?"},
		"not Vault at all":   {404, "", `<html>404</html>`, keyring.ErrUnavailable, false, 0, "not Vault's"},
		"stale":              {412, "", `{"errors":["required index state not present"]}`, keyring.ErrUnavailable, true, 0, "index"},
		"quota":              {429, "7", `{"errors":["request path quota exceeded"]}`, keyring.ErrUnavailable, false, 7 * time.Second, "quota"},
		"quota, silent":      {429, "", `{"errors":["request path quota exceeded"]}`, keyring.ErrUnavailable, false, 0, "quota"},
		"quota, strange":     {429, "soon", `{"errors":[]}`, keyring.ErrUnavailable, false, 0, "too many"},
		"quota, very long":   {429, "99999999", `{"errors":[]}`, keyring.ErrUnavailable, false, time.Hour, "too many"},
		"no leader":          {500, "", `{"errors":["local node not active but active cluster node not found"]}`, keyring.ErrUnavailable, true, 0, "not active"},
		"sealed":             {503, "", sealed, keyring.ErrUnavailable, false, 0, "sealed"},
		"a balancer's":       {503, "", "<html>canary</html>", keyring.ErrUnavailable, true, 0, "service unavailable"},
		"a gateway's":        {502, "", "canary", keyring.ErrUnavailable, true, 0, "bad gateway"},
		"a redirect to none": {307, "", "", keyring.ErrUnavailable, true, 0, "307"},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
				if tc.header != "" {
					w.Header().Set("Retry-After", tc.header)
				}
				if tc.status == 307 {
					w.Header().Set("Location", "/v1/again")
				}
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			})
			reply, err := s.Do(t.Context(), Request{Method: "PUT", Path: "kv/data/x", Body: map[string]any{"a": 1}})
			if err == nil {
				t.Fatalf("Do = %+v", reply)
			}
			wantLine(t, err, "PUT kv/data/x", tc.says)
			for _, kind := range []error{keyring.ErrDenied, keyring.ErrUnavailable} {
				if errors.Is(err, kind) != (kind == tc.kind) {
					t.Errorf("%q: is %q: %v", err, kind, errors.Is(err, kind))
				}
			}
			if Uncertain(err) != tc.uncertain {
				t.Errorf("%q: uncertain %v", err, Uncertain(err))
			}
			var asks interface{ RetryAfter() time.Duration }
			if !errors.As(fmt.Errorf("wrapped: %w", err), &asks) || asks.RetryAfter() != tc.retry {
				t.Errorf("%q: retry after %v, want %v", err, asks.RetryAfter(), tc.retry)
			}
		})
	}
}

// wantLine wants an error that is one line for a log and says all of this.
func wantLine(t *testing.T, err error, says ...string) {
	t.Helper()
	text := err.Error()
	for _, part := range says {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not say %q", text, part)
		}
	}
	if strings.ContainsAny(text, "\n\t") || strings.Contains(text, "canary") {
		t.Errorf("%q is no line for a log", text)
	}
}

func TestNoWholeAnswer(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"hung up": func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			conn.Close()
		},
		"broken off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"data":`)
		},
		"too slow": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			select {
			case <-r.Context().Done():
			case <-time.After(2 * time.Second):
			}
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for range maxReply/4096 + 2 {
				_, _ = w.Write(make([]byte, 4096))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var calls atomic.Int32
			timeout := 2 * time.Second // a client that repeats would wait 1 s and do it
			if name == "too slow" {
				timeout = 300 * time.Millisecond
			}
			s := fake(t, timeout, func(w http.ResponseWriter, r *http.Request) { calls.Add(1); handler(w, r) })
			start := time.Now()
			_, err := s.Do(t.Context(), Request{Method: "PUT", Path: "x", Body: 1})
			if !errors.Is(err, keyring.ErrUnavailable) || !Uncertain(err) {
				t.Errorf("Do = %v, want ErrUnavailable, uncertain", err)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if n := calls.Load(); n != 1 {
				t.Errorf("%d requests: a write must not be repeated here", n)
			}
		})
	}
}

func TestMissingIsNoError(t *testing.T) {
	s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(404)
		_, _ = io.WriteString(w, `{"errors":[]}`)
	})
	reply, err := s.Do(t.Context(), Request{Method: "GET", Path: "x"})
	if err != nil || !reply.Missing() {
		t.Errorf("Do = %+v, %v", reply, err)
	}
}

// A request that was not sent is not uncertain, whatever became of the login.
func TestNotSentIsCertain(t *testing.T) {
	s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) { t.Error("it was sent") })
	for _, loginErr := range []error{&Error{Op: "PUT auth", cause: io.EOF}, &Error{Op: "PUT auth", Status: 403}, io.EOF} {
		s.drop()
		s.rest(loginErr)
		_, err := s.Do(t.Context(), Request{Method: "PUT", Path: "x"})
		if err == nil || Uncertain(err) {
			t.Errorf("after %v: Do = %v, uncertain %v", loginErr, err, Uncertain(err))
		}
		if denied := errors.Is(loginErr, keyring.ErrDenied); errors.Is(err, keyring.ErrDenied) != denied || errors.Is(err, keyring.ErrUnavailable) == denied {
			t.Errorf("after %v: Do = %v", loginErr, err)
		}
	}
}

func TestVaultUnavailable(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	s, stop := running(t, Config{Address: server.URL(), Timeout: time.Second, Auth: Auth{Method: MethodToken, Token: given(server.RootToken())}})
	ready(t, s)
	get := func() error {
		_, err := s.Do(context.Background(), Request{Method: "GET", Path: "auth/token/lookup-self"})
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	want := func(state, says string) {
		t.Helper()
		start, err := time.Now(), get()
		for tries := 0; err == nil && tries < 100; tries++ { // a process that is stopped runs on for a moment
			start, err = time.Now(), get()
		}
		if !errors.Is(err, keyring.ErrUnavailable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want ErrUnavailable and %q", state, err, says)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: it took %v", state, took)
		}
	}
	server.Pause()
	want("paused", "deadline exceeded")
	server.Resume()
	eventually(t, 5*time.Second, "back after the pause", func() bool { return get() == nil })
	server.Seal(t)
	want("sealed", "sealed")
	server.Unseal(t)
	eventually(t, 5*time.Second, "back after the seal", func() bool { return get() == nil })
	server.Kill()
	want("stopped", "refused")
	server.Restart(t)
	eventually(t, 5*time.Second, "back after the stop", func() bool { return get() == nil })
	stop()
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("after Run: Ready = %v", err)
	}
}
