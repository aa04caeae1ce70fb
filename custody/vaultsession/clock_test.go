package vaultsession

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Every answer of Vault's carries its clock, refusals too; what a proxy or a
// server that is not Vault says about the time counts for nothing.
func TestStoreClock(t *testing.T) {
	date := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tc := range map[string]struct {
		status int
		header string
		body   string
		ok     bool
	}{
		"an answer":          {200, date.Format(http.TimeFormat), `{}`, true},
		"nothing there":      {404, date.Format(http.TimeFormat), `{"errors":[]}`, true},
		"denied":             {403, date.Format(http.TimeFormat), `{"errors":["permission denied"]}`, true},
		"sealed":             {503, date.Format(http.TimeFormat), `{"errors":["Vault is sealed"]}`, true},
		"a gateway's":        {502, date.Format(http.TimeFormat), "bad gateway", false},
		"another server's":   {404, date.Format(http.TimeFormat), "<html>", false},
		"no date":            {200, "", `{}`, false},
		"a date of no sense": {200, "soon", `{}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := fake(t, 3*time.Second, func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Date"] = nil // net/http would write its own
				if tc.header != "" {
					w.Header().Set("Date", tc.header)
				}
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			})
			if _, _, _, ok := s.StoreClock(); ok {
				t.Error("a clock before the first answer")
			}
			before := time.Now().Round(0)
			_, _ = s.Do(t.Context(), Request{Method: "GET", Path: "kv/data/x"})
			got, sent, received, ok := s.StoreClock()
			if ok != tc.ok {
				t.Fatalf("StoreClock = %v, %v", got, ok)
			}
			if ok && (!got.Equal(date) || sent.Before(before) || received.Before(sent) || received.After(time.Now())) {
				t.Errorf("%s, sent %s, received %s; want %s, asked after %s", got, sent, received, date, before)
			}
		})
	}
}

// A real Vault says the time, and it is this machine's.
func TestStoreClockOfVault(t *testing.T) {
	s, _ := running(t, Config{Address: vault.URL(), Auth: Auth{Method: MethodToken, Token: given(vault.RootToken())}})
	ready(t, s)
	date, sent, received, ok := s.StoreClock()
	if !ok || date.Before(sent.Add(-time.Second)) || date.After(received.Add(time.Second)) {
		t.Errorf("%s (%v), between %s and %s", date, ok, sent, received)
	}
}

// Each login is told, the first and the one after an outage; a try that failed
// is not.
func TestOnLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Session
		var told, logins atomic.Int64
		s, err := New(Config{
			Address: "http://127.0.0.1:1", Auth: Auth{Method: MethodToken, Token: given("t")},
			OnLogin: func() {
				told.Add(1)
				if err := s.Ready(t.Context()); err != nil {
					t.Errorf("told of a login, and %v", err)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		s.login = func(context.Context) (token, error) {
			if logins.Add(1) == 2 {
				return token{value: "a", life: time.Minute, expires: time.Now().Add(time.Minute)}, nil
			}
			return token{}, keyring.ErrUnavailable
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		want := func(at time.Duration, n int64) {
			t.Helper()
			time.Sleep(at)
			synctest.Wait()
			if got := told.Load(); got != n {
				t.Errorf("told %d times in %d tries, want %d", got, logins.Load(), n)
			}
		}
		want(9*time.Second, 0)
		want(2*time.Second, 1)
		want(5*time.Minute, 1)
		if logins.Load() < 3 {
			t.Errorf("%d tries", logins.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}
