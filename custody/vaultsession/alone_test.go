package vaultsession

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// TestLeftAlone: nobody asks before the time is over, and the longest one that
// was asked for counts.
func TestLeftAlone(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	var a alone
	for _, step := range []struct {
		at    time.Duration
		hear  time.Duration // of an answer at that time
		wait  time.Duration // what is left then
		while string
	}{
		{0, 0, 0, "an answer without the header"},
		{0, 20 * time.Second, 20 * time.Second, "the first"},
		{5 * time.Second, 7 * time.Second, 15 * time.Second, "a shorter one, of a request that was on its way"},
		{19 * time.Second, 0, time.Second, "the last second"},
		{20 * time.Second, 0, 0, "the end"},
		{30 * time.Second, time.Hour, aloneAtMost, "a time that would outlast every lease"},
	} {
		now := start.Add(step.at)
		a.note(&Error{Op: "GET x", Status: 429, Messages: []string{"too many"}, retryAfter: step.hear}, now)
		err := a.refusal(now)
		if step.wait == 0 {
			if err != nil {
				t.Errorf("%s: %v", step.while, err)
			}
			continue
		}
		var asks interface{ RetryAfter() time.Duration }
		if !errors.Is(err, keyring.ErrUnavailable) || !errors.As(err, &asks) || asks.RetryAfter() != step.wait || Uncertain(err) {
			t.Errorf("%s: %v, want %s", step.while, err, step.wait)
		}
	}
}

// TestOnlyOverloadIsLeftAlone: an answer about one request stops no other.
func TestOnlyOverloadIsLeftAlone(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for status, want := range map[int]bool{429: true, 503: true, 400: false, 403: false, 404: false, 500: false} {
		var a alone
		a.note(&Error{Op: "GET x", Status: status, retryAfter: time.Minute}, now)
		if got := a.refusal(now) != nil; got != want {
			t.Errorf("status %d: left alone %v", status, got)
		}
	}
}
