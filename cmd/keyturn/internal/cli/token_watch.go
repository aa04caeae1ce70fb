package cli

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"time"

	"github.com/keyturn/keyturn/api"
)

const (
	// After a failure it is tried again so much later at least, twice as much
	// each time, and so much at most.
	firstRetry, lastRetry = 500 * time.Millisecond, 15 * time.Second
	// expiredRetry is the longest pause while the token in the file has expired:
	// each second counts then, and asking costs little.
	expiredRetry = 2 * time.Second
	// lookAgain bounds the time for which nothing is looked at: timers stand still
	// while a machine sleeps, and a clock that was set is noticed.
	lookAgain = 20 * time.Second
)

// tokenWatch is what is known of the file while it is kept fresh.
type tokenWatch struct {
	*tokenFile
	due      time.Time // when to renew
	ends     time.Time // of the token in the file; zero where there is none
	failures int       // since the last token
	cause    string    // of the last failure, as it was told
	told     bool      // that the token has expired
}

// watch keeps a fresh token in the file until the context ends. A refusal ends
// it only while there has been no token: later on the profile may come back.
func (t *tokenFile) watch(ctx context.Context, again <-chan os.Signal) error {
	w := &tokenWatch{tokenFile: t, ends: t.left()}
	for began := false; ; {
		now := time.Now()
		if reached(now, w.due) {
			resp, err := w.renew(ctx)
			now = time.Now()
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil:
				began = true
				w.renewed(resp, now)
			case !began && final(err):
				return err
			default:
				w.failed(err, now)
			}
		}
		w.tellExpiry(now)
		timer := time.NewTimer(w.wait(now))
		select {
		case <-timer.C:
		case <-again:
			w.due, w.failures = time.Time{}, 0
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

func (w *tokenWatch) renewed(resp api.SignResponse, now time.Time) {
	life := time.Duration(resp.ExpiresIn) * time.Second
	switch {
	case w.cause != "":
		w.say("fresh again; expires at %s", stamp(now.Add(life)))
	case w.failures == 0 && w.due.IsZero():
		w.say("written; expires at %s, and is replaced before", stamp(now.Add(life)))
	}
	w.failures, w.cause, w.told = 0, "", false
	w.ends = now.Add(life)
	w.due = now.Add(spread(life*3/5, life*2/3))
}

func (w *tokenWatch) failed(err error, now time.Time) {
	if cause := causeOf(err); cause != w.cause { // one line for one cause
		w.cause = cause
		if left := w.ends.Sub(now); left > 0 {
			w.say("not replaced, the old one is good for %s: %v", rough(left), err)
		} else {
			w.say("not written: %v", err)
		}
	}
	pause := min(firstRetry<<min(w.failures, 10), lastRetry)
	if left := w.ends.Sub(now); left > 0 { // a short life leaves little time
		pause = min(pause, max(left/4, firstRetry))
	} else if !w.ends.IsZero() {
		pause = min(pause, expiredRetry)
	}
	var refused *refusedError
	if errors.As(err, &refused) {
		pause = max(pause, refused.problem.RetryAfter)
	}
	w.failures++
	w.due = now.Add(spread(pause, pause*3/2))
}

// causeOf tells failures apart: details such as times do not make another one.
func causeOf(err error) string {
	var refused *refusedError
	if errors.As(err, &refused) {
		return string(refused.problem.Code)
	}
	return err.Error()
}

// tellExpiry says once that programs read a token that is refused by now.
func (w *tokenWatch) tellExpiry(now time.Time) {
	if w.told || w.ends.IsZero() || !reached(now, w.ends) {
		return
	}
	w.told = true
	w.say("the token in the file expired at %s: whoever gets it refuses it", stamp(w.ends))
}

func (w *tokenWatch) wait(now time.Time) time.Duration {
	wait := min(w.due.Sub(now), lookAgain)
	if left := w.ends.Sub(now); !w.told && left > 0 {
		wait = min(wait, left)
	}
	return max(wait, 0)
}

// reached reports whether a time has come by either clock: the wall clock goes
// on while the machine sleeps, the monotonic one does not go back.
func reached(now, t time.Time) bool { return !now.Before(t) || !now.Round(0).Before(t.Round(0)) }

// spread is a random time between two, so that many watchers do not come together.
func spread(from, to time.Duration) time.Duration {
	if to <= from {
		return from
	}
	return from + rand.N(to-from)
}
