package vaultsession

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// scripted is a session whose logins are told by a function and timed; no
// network, so that it can live in a bubble.
func scripted(t *testing.T, login func(n int) (token, error), changed ...func() bool) (s *Session, times func() []time.Duration) {
	t.Helper()
	s, err := New(Config{Address: "http://127.0.0.1:1", Auth: Auth{Method: MethodToken, Token: given("t")}})
	if err != nil {
		t.Fatal(err)
	}
	var at []time.Duration
	start := time.Now()
	s.login = func(context.Context) (token, error) {
		at = append(at, time.Since(start))
		return login(len(at))
	}
	for _, c := range changed {
		s.changed = c
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return s, func() []time.Duration { synctest.Wait(); return at }
}

func wantTimes(t *testing.T, got []time.Duration, want ...time.Duration) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("logins at %v, want %v", got, want)
	}
}

// What is refused is tried again later and later: never five times in a
// quarter of an hour's first two minutes.
func TestRefusedLogins(t *testing.T) {
	for name, refusal := range map[string]error{
		"400":     &Error{Op: "PUT auth", Status: 400},
		"403":     &Error{Op: "PUT auth", Status: 403},
		"no file": errors.New("secret_id_file: no such file"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, times := scripted(t, func(int) (token, error) { return token{}, refusal })
				time.Sleep(21 * time.Minute)
				sec := time.Second
				wantTimes(t, times(), 0, 10*sec, 30*sec, 70*sec, 150*sec, 310*sec, 610*sec, 910*sec, 1210*sec)
			})
		})
	}
}

func TestLoginsInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, times := scripted(t, func(n int) (token, error) {
			switch n {
			case 1, 2:
				return token{}, &Error{Op: "PUT auth", Status: 503}
			case 3:
				return token{}, &Error{Op: "PUT auth", Status: 429, retryAfter: 45 * time.Second}
			case 4:
				return token{}, &Error{Op: "PUT auth", Status: 429, retryAfter: time.Hour}
			}
			return token{value: "v"}, nil
		})
		if err := s.Ready(t.Context()); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Ready = %v", err)
		}
		time.Sleep(time.Hour)
		sec := time.Second
		wantTimes(t, times(), 0, 10*sec, 20*sec, 65*sec, 365*sec)
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("Ready = %v", err)
		}
	})
}

// Other credentials are tried within 10 s.
func TestMendedCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		s, times := scripted(t, func(int) (token, error) {
			if mended.Load() {
				return token{value: "v"}, nil
			}
			return token{}, &Error{Op: "PUT auth", Status: 400}
		}, mended.Load)
		time.Sleep(401 * time.Second) // in the wait of 300 s that begins at 310 s
		mended.Store(true)
		time.Sleep(15 * time.Second)
		sec := time.Second
		wantTimes(t, times(), 0, 10*sec, 30*sec, 70*sec, 150*sec, 310*sec, 410*sec)
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("Ready = %v", err)
		}
	})
}

// While logins fail a token that still lives is used; when it has ended, the
// callers hear why at once.
func TestTokenOutlivesFailingLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := scripted(t, func(n int) (token, error) {
			if n == 1 {
				return newToken("v", 60, false, time.Now()), nil
			}
			return token{}, &Error{Op: "PUT auth", Status: 503, Messages: []string{"Vault is sealed"}}
		})
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("Ready = %v while the token lives", err)
		}
		if s.LastError() == nil {
			t.Error("LastError is nil though logins fail")
		}
		time.Sleep(2 * time.Second)
		start := time.Now()
		if err := s.Ready(t.Context()); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Ready = %v after its end", err)
		}
		// Refused as invalid while the next login is far off: no waiting either.
		s.mu.Lock()
		s.tok = token{value: "v"}
		s.mu.Unlock()
		s.Invalidate(errors.New("refused"))
		if err := s.Ready(t.Context()); !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Ready = %v after Invalidate", err)
		}
		if time.Since(start) > 0 {
			t.Errorf("Ready waited %v", time.Since(start))
		}
	})
}

func TestReadyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := scripted(t, func(int) (token, error) {
			time.Sleep(3 * time.Second)
			return token{value: "v"}, nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, keyring.ErrUnavailable) {
			t.Errorf("Ready = %v", err)
		}
		if err := s.Ready(t.Context()); err != nil {
			t.Errorf("Ready = %v", err)
		}
	})
}
