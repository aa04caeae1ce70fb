package vaultsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/keyring"
)

// Session is a login to Vault. New makes it, Run gives it life; the other
// methods may be called from anywhere.
type Session struct {
	timeout   time.Duration
	log       *slog.Logger
	onLogin   func()
	method    string
	transport *http.Transport
	client    *vaultapi.Client // carries the token
	bare      *vaultapi.Client // carries none
	fresh     func() (*vaultapi.Client, error)
	nudge     chan struct{} // capacity 1: Invalidate wakes Run

	alone alone // what Do keeps to

	// login and changed belong to Run's goroutine.
	login   func(context.Context) (token, error)
	changed func() bool

	mu      sync.Mutex
	attempt chan struct{} // closed when the attempt in flight has ended; nil if none is
	tok     token         // the one in the client; no value: none
	suspect bool          // somebody was told that it is invalid
	resting bool          // a login failed; the next one is some time off
	err     error         // of the last attempt to log in or to renew
	ended   bool

	clockMu sync.Mutex
	clock   storeClock
}

// Client is Vault's client with the session's current token, for calls that Do
// does not cover. It has no timeout and repeats nothing: give it a context.
func (s *Session) Client() *vaultapi.Client { return s.client }

// Ready returns nil while there is a token that is not known to be dead. While
// the first login, or one in place of a dead token, is in flight it waits for
// its end; otherwise it returns why there is no token, at once. The error
// wraps keyring.ErrDenied or keyring.ErrUnavailable.
func (s *Session) Ready(ctx context.Context) error {
	for {
		s.mu.Lock()
		live, err, attempt := s.live(), s.err, s.attempt
		if s.ended {
			live, err, attempt = false, errors.New("the session has ended"), nil
		}
		s.mu.Unlock()
		switch {
		case live:
			return nil
		case attempt == nil:
			return notReady(err)
		}
		select {
		case <-attempt:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the Vault login: %w: %w", keyring.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// notReady is the reason in keyring's words. It does not wrap err: what became
// of a login says nothing about the request that was never sent (Uncertain).
func notReady(err error) error {
	kind := keyring.ErrUnavailable
	switch {
	case err == nil:
		err = errors.New("it has expired")
	case errors.Is(err, keyring.ErrDenied):
		kind = keyring.ErrDenied
	}
	return fmt.Errorf("no Vault token: %w: %s", kind, err)
}

// live is called with mu held.
func (s *Session) live() bool {
	return s.tok.value != "" && !s.suspect && (s.tok.expires.IsZero() || time.Now().Before(s.tok.expires))
}

// Invalidate says that Vault refused the token as invalid. Run checks that
// before it logs in again, since the answer may be one to an older token.
func (s *Session) Invalidate(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.live() {
		return // Run is at it
	}
	s.log.Warn("vault token refused", "error", cause)
	s.suspect = true
	if s.resting {
		return // the next login tells; until then there is no token
	}
	s.begin()
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// Expiry is when the token ends unless it is renewed; false without a token or
// without an end.
func (s *Session) Expiry() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tok.expires, s.tok.value != "" && !s.tok.expires.IsZero()
}

// LastError is why the last attempt to log in or to renew failed, nil once one
// has succeeded.
func (s *Session) LastError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// The transitions. wake, rest, settle, note, drop and acquit are Run's.

// wake: an attempt to log in begins.
func (s *Session) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting = false
	s.begin()
}

// settle: it succeeded, or the token was renewed.
func (s *Session) settle(tok token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tok, s.suspect, s.err = tok, false, nil
	s.client.SetToken(tok.value)
	s.finish()
}

// rest: it failed, and the next one is some time off. A token that is not
// known to be dead stays in use.
func (s *Session) rest(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting, s.err = true, err
	s.finish()
}

// note: the token was not renewed, and still lives.
func (s *Session) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// drop: the token is dead. Callers wait for the login that follows at once.
func (s *Session) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tok, s.suspect = token{}, false
	s.client.ClearToken()
	s.begin()
}

// acquit: a suspect token lives, or Vault cannot say.
func (s *Session) acquit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspect = false
	s.finish()
}

// begin and finish are called with mu held.
func (s *Session) begin() {
	if s.attempt == nil {
		s.attempt = make(chan struct{})
	}
}

func (s *Session) finish() {
	if s.attempt != nil {
		close(s.attempt)
		s.attempt = nil
	}
}

// Format implements fmt.Formatter: no verb prints the token.
func (*Session) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "vault session") }
