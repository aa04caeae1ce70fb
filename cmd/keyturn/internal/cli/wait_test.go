package cli

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
)

func TestInsist(t *testing.T) {
	away := unreachablef("there is no socket")
	busy := &exitError{exitUnreachable, &refusedError{"unavailable", api.Problem{Code: api.Unavailable, RetryAfter: 3 * time.Second}}}
	refused := &refusedError{"forbidden", api.Problem{Code: api.Forbidden}}
	for name, tc := range map[string]struct {
		limit    time.Duration
		errs     []error // of the tries; the last one goes on
		want     error
		tries    int // at least, and at most two more
		from, to time.Duration
	}{
		"at once":                    {time.Minute, []error{nil}, nil, 1, 0, 0},
		"without a wait":             {0, []error{away}, away, 1, 0, 0},
		"it comes":                   {time.Minute, []error{away, away, away, nil}, nil, 4, 350 * time.Millisecond, 525 * time.Millisecond},
		"it does not come":           {10 * time.Second, []error{away}, away, 10, 8500 * time.Millisecond, 10 * time.Second},
		"told when to come back":     {10 * time.Second, []error{busy, nil}, nil, 2, 3 * time.Second, 3750 * time.Millisecond},
		"told to come back too late": {2 * time.Second, []error{busy}, busy, 1, 0, 0},
		"refused":                    {time.Minute, []error{away, refused}, refused, 2, 50 * time.Millisecond, 75 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, tries := time.Now(), 0
				err := insist(t.Context(), tc.limit, func() error {
					tries++
					return tc.errs[min(tries, len(tc.errs))-1]
				})
				took := time.Since(began)
				if !errors.Is(err, tc.want) || tries < tc.tries || tries > tc.tries+2 || took < tc.from || took > tc.to {
					t.Errorf("%v after %d tries in %s; want %v after %d in %s to %s", err, tries, took, tc.want, tc.tries, tc.from, tc.to)
				}
			})
		})
	}
}

// Who gives up waiting hears why it took so long.
func TestInsistUntilGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began, away := time.Now(), unreachablef("there is no socket")
		if err := insist(ctx, time.Hour, func() error { return away }); !errors.Is(err, away) || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}
