package vaultsession

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// Error is a request that Vault did not carry out, or that may have been
// carried out without our hearing of it. It wraps keyring.ErrDenied or
// keyring.ErrUnavailable where that is what it means, and the cause.
type Error struct {
	// Op is the verb and the path.
	Op string
	// Status is HTTP's, 0 where no whole answer came.
	Status int
	// Messages are Vault's own, shortened. They hold no secret: they are taken
	// from Vault's error documents only, never from another body, and one that
	// repeats what we sent is withheld.
	Messages []string

	retryAfter time.Duration
	cause      error
}

func (e *Error) Error() string {
	switch {
	case e.Status == 0:
		return fmt.Sprintf("%s: %v", e.Op, e.cause)
	case len(e.Messages) == 0:
		return fmt.Sprintf("%s: status %d %s", e.Op, e.Status, strings.ToLower(http.StatusText(e.Status)))
	}
	hint := ""
	switch {
	case e.Status == http.StatusForbidden && !e.Says("invalid token"):
		hint = " (does the token's policy allow it?)"
	case e.Status == http.StatusNotFound:
		hint = " (is the mount there?)"
	}
	return fmt.Sprintf("%s: status %d: %s%s", e.Op, e.Status, strings.Join(e.Messages, "; "), hint)
}

// Unwrap gives keyring's word for it and the cause.
func (e *Error) Unwrap() []error {
	out := make([]error, 0, 2)
	switch {
	case e.Status == http.StatusForbidden:
		out = append(out, keyring.ErrDenied)
	case e.Status == 0, e.Status >= 500, e.Status == http.StatusTooManyRequests, e.Status == http.StatusPreconditionFailed,
		e.Status < 400,                         // a redirect that leads nowhere: no leader
		e.Status == http.StatusNotFound,        // only a route that is not there gets here
		e.Says("Upgrading from non-versioned"): // a KV v2 mount in its first second
		out = append(out, keyring.ErrUnavailable)
	}
	if e.cause != nil {
		out = append(out, e.cause)
	}
	return out
}

// RetryAfter is how long Vault asks to be left alone, 0 if it does not say.
// Who does not import this package asks for the method by errors.As.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

// Says reports whether one of Vault's messages contains text.
func (e *Error) Says(text string) bool {
	for _, m := range e.Messages {
		if strings.Contains(m, text) {
			return true
		}
	}
	return false
}

// Uncertain reports whether a write that ended with err may have been applied,
// now or a little later. Only a definite answer excludes it: that Vault had
// refused, was sealed, or had not let us in.
func Uncertain(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false // it never left this process
	}
	switch {
	case e.Status >= 400 && e.Status < 500 && e.Status != http.StatusPreconditionFailed && e.Status != http.StatusRequestTimeout:
		return false
	case e.Status == http.StatusServiceUnavailable && e.Says("Vault is sealed"):
		return false
	}
	return true
}

func isInvalidToken(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == http.StatusForbidden && e.Says("invalid token")
}

// retryAfter reads the header in seconds; Vault writes no dates.
func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(strings.TrimSpace(h.Get("Retry-After")))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, 3600)) * time.Second
}

// clean makes Vault's messages fit for a log: one line, not too long.
func clean(messages []string) []string {
	var out []string
	for _, m := range messages {
		m = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' '
			}
			return r
		}, m)), " ")
		if len(m) > 300 {
			m = m[:300] + "…"
		}
		if m != "" {
			out = append(out, strings.ToValidUTF8(m, ""))
		}
	}
	return out
}
