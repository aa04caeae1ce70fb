package cli

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/configs"
)

// A try comes so much later than the one before at least, twice as much each
// time, and so much at most.
const firstPause, lastPause = 50 * time.Millisecond, time.Second

// noWait is what --wait is unless somebody says otherwise. In the configuration
// there is no such duration.
const noWait = "0s"

func parseWait(text string) (time.Duration, error) {
	if text == noWait {
		return 0, nil
	}
	d, err := configs.ParseDuration(text)
	if err != nil {
		return 0, usagef("--wait: %w", err)
	}
	return time.Duration(d), nil
}

// insist tries until it succeeds, fails for a reason that waiting does not
// mend, or has tried for so long. A try that is under way then is not cut off.
// Where the daemon says when to come back, it is not asked before, and not
// waited for where that is too late.
func insist(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := try()
		if exitCode(err) != exitUnreachable {
			return err
		}
		next := spread(pause, pause*3/2)
		var refused *refusedError
		if errors.As(err, &refused) && refused.problem.RetryAfter > 0 {
			next = spread(refused.problem.RetryAfter, refused.problem.RetryAfter*5/4)
		}
		if time.Until(deadline) <= next {
			return err
		}
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}
