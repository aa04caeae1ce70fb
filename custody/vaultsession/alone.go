package vaultsession

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// alone is the time for which Vault asked to be left alone (Retry-After). It
// holds for all that would ask, whoever was told: they share one quota, and one
// address that it is counted by.
type alone struct {
	mu    sync.Mutex // guards what follows
	until time.Time
	why   string
}

// aloneAtMost is shorter than any lease: renewals, revocations and the
// destruction of revoked halves wait with all the others.
const aloneAtMost = 30 * time.Second

// note keeps what an answer of a Vault that is overloaded, sealed or has a
// quota asks for. Other answers are about one request.
func (a *alone) note(fault *Error, now time.Time) {
	if fault.retryAfter <= 0 || (fault.Status != http.StatusTooManyRequests && fault.Status != http.StatusServiceUnavailable) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if until := now.Add(min(fault.retryAfter, aloneAtMost)); until.After(a.until) {
		a.until, a.why = until, fault.Error()
	}
}

// refusal is the answer to whoever asks before that time is over, nil after it.
func (a *alone) refusal(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.until.Sub(now); left > 0 {
		return &aloneError{left, a.why}
	}
	return nil
}

// aloneError: the request was never sent, so it is no Error (Uncertain).
type aloneError struct {
	left time.Duration
	why  string
}

func (e *aloneError) Error() string {
	return fmt.Sprintf("not asked: Vault wants to be left alone for another %s: %s", e.left.Round(time.Second), e.why)
}

func (e *aloneError) Unwrap() error { return keyring.ErrUnavailable }

// RetryAfter is as Error's.
func (e *aloneError) RetryAfter() time.Duration { return e.left }
