package vaultsession

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

const (
	// tryEvery is the shortest time between two attempts that fail.
	tryEvery = 10 * time.Second
	// tryAtMost is the longest one. Five wrong secret ids lock a role out for a
	// quarter of an hour: 10 s, doubled each time, takes 150 s to get there, and
	// by then somebody has been told.
	tryAtMost = 5 * time.Minute
	// revokeWithin bounds what the end of Run waits for Vault.
	revokeWithin = 3 * time.Second
)

// Run logs in and keeps the login alive until ctx ends, then revokes the token
// if Run logged in for it, and returns nil. It is called once. Whoever still
// needs Vault must have stopped before.
func (s *Session) Run(ctx context.Context) error {
	defer s.end(ctx)
	refused := 0
	for ctx.Err() == nil {
		s.wake()
		tok, err := s.login(ctx)
		if err == nil {
			refused = 0
			// An alarm about the token before has done its work.
			select {
			case <-s.nudge:
			default:
			}
			s.settle(tok)
			s.log.Info("vault login", "method", s.method, "ttl", tok.life.String(), "renewable", tok.renewable)
			s.onLogin()
			s.keep(ctx, tok)
			continue
		}
		if ctx.Err() != nil {
			break
		}
		s.rest(err)
		if !errors.Is(err, keyring.ErrUnavailable) {
			refused++
		}
		wait := pause(err, refused)
		s.log.Error("vault login failed", "method", s.method, "error", err, "retry_in", wait.String())
		s.sleep(ctx, wait)
	}
	return nil
}

// pause is how long to wait after a failed login. What Vault refuses it will
// refuse again, so that wait grows; an outage ends by itself.
func pause(err error, refused int) time.Duration {
	if errors.Is(err, keyring.ErrUnavailable) {
		var asks interface{ RetryAfter() time.Duration }
		if errors.As(err, &asks) {
			return min(max(tryEvery, asks.RetryAfter()), tryAtMost)
		}
		return tryEvery
	}
	return min(tryEvery<<min(refused-1, 10), tryAtMost)
}

// sleep waits, but not longer than it takes for other credentials to appear.
func (s *Session) sleep(ctx context.Context, wait time.Duration) {
	for wait > 0 && ctx.Err() == nil {
		step := min(wait, tryEvery)
		wait -= step
		select {
		case <-ctx.Done():
		case <-time.After(step):
			if s.changed() {
				return
			}
		}
	}
}

// keep renews the token and returns when a new login is needed, or ctx ends.
func (s *Session) keep(ctx context.Context, tok token) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := nextLook(tok)
	for {
		timer.Stop()
		if tok.life > 0 { // else there is nothing to wait for
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.nudge:
			if s.isDead(ctx) {
				return
			}
			wait = nextLook(tok)
		case <-timer.C:
			if !tok.renewable || !time.Now().Before(tok.expires) {
				return
			}
			var alive bool
			if tok, wait, alive = s.renew(ctx, tok); !alive {
				return
			}
		}
	}
}

// nextLook is after two thirds of what is left; the rest is for what may fail.
func nextLook(tok token) time.Duration {
	return max(time.Until(tok.expires)*2/3, 100*time.Millisecond)
}

// renew extends the token and says when to look again; false means that only a
// new login helps.
func (s *Session) renew(ctx context.Context, tok token) (token, time.Duration, bool) {
	start := time.Now()
	reply, err := s.send(ctx, s.client, Request{Method: "PUT", Path: "auth/token/renew-self", Body: struct{}{}})
	var next token
	if err == nil {
		next, err = grantedToken(reply, start)
	}
	switch {
	case err == nil:
		next.ours, next.value = tok.ours, tok.value
		next.renewable = next.renewable && next.life >= tok.life*9/10
		if !next.renewable {
			s.log.Info("vault token nears its maximum life; a new login follows", "ttl", next.life.String())
		}
		if next.expires.IsZero() { // less than a second: Vault counts whole ones
			return tok, 0, false
		}
		next.life = max(tok.life, next.life) // what the next renewal is measured by
		s.settle(next)
		return next, nextLook(next), true
	case ctx.Err() != nil:
		return tok, tryEvery, true // keep sees it
	case isInvalidToken(err):
		s.drop()
		return tok, 0, false
	case !errors.Is(err, keyring.ErrUnavailable):
		// It may not renew itself: use it up, then log in.
		s.log.Warn("vault token may not be renewed; a new login follows before it ends", "error", err)
		tok.renewable = false
		return tok, nextLook(tok), true
	}
	s.note(err)
	left := time.Until(tok.expires)
	wait := max(min(left/3, tryEvery), time.Second)
	s.log.Warn("vault token not renewed", "error", err, "expires_in", left.Round(time.Second).String(), "retry_in", wait.String())
	return tok, wait, true
}

// isDead asks Vault about a token that somebody was told is invalid.
func (s *Session) isDead(ctx context.Context) bool {
	_, err := s.send(ctx, s.client, Request{Method: "GET", Path: "auth/token/lookup-self"})
	if isInvalidToken(err) {
		s.drop()
		return true
	}
	// It lives, or Vault cannot say: then the callers find out.
	s.acquit()
	return false
}

// end revokes the token and lets nobody wait for another.
func (s *Session) end(ctx context.Context) {
	s.mu.Lock()
	tok := s.tok
	s.ended = true
	s.finish()
	s.mu.Unlock()
	if tok.ours {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeWithin)
		defer cancel()
		if _, err := s.send(ctx, s.client, Request{Method: "PUT", Path: "auth/token/revoke-self", Body: struct{}{}}); err != nil {
			s.log.Warn("vault token not revoked; it ends by itself", "error", err)
		}
	}
	s.mu.Lock()
	s.tok = token{}
	s.client.ClearToken()
	s.mu.Unlock()
	s.transport.CloseIdleConnections()
}
