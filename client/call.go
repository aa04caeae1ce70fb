package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/api"
)

// How long a call waits before it asks a daemon again that did not answer: the
// double each time, with jitter.
const (
	firstPause = 20 * time.Millisecond
	lastPause  = time.Second
	// maxRetryAfter bounds what an answer can make a call wait.
	maxRetryAfter = time.Minute
)

// obstacle is the key of a context's func(error), which is told what is in the
// way of a call that goes on: whoever waits for it may give up sooner.
type obstacle struct{}

// do makes a call until it is answered with 200 or refused for good, or until
// its time is up. The caller releases the answer.
func (c *Client) do(ctx context.Context, op string, request []byte) (*answer, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(c.timeout)
	}
	var last error
	for attempt := 0; ; attempt++ {
		a, err := c.once(ctx, deadline, request)
		if err == nil {
			return a, nil
		}
		if errors.Is(err, context.DeadlineExceeded) { // which is not why it took so long
			err = ended(err, last)
		}
		last = err
		if tell, ok := ctx.Value(obstacle{}).(func(error)); ok {
			tell(err)
		}
		if ctx.Err() != nil {
			return nil, c.failed(op, ended(ctx.Err(), err))
		}
		if !Retryable(err) {
			return nil, c.failed(op, err)
		}
		wait := pause(err, attempt)
		if time.Until(deadline) <= wait {
			if time.Until(deadline) <= 0 {
				err = ended(context.DeadlineExceeded, err)
			}
			return nil, c.failed(op, err) // what is left of the time cannot help
		}
		if why := sleep(ctx, wait); why != nil {
			return nil, c.failed(op, ended(why, err))
		}
	}
}

// once is a call without repetition, but for a connection that was dead before
// the call: the daemon may have been replaced, and nothing was asked of the new one.
func (c *Client) once(ctx context.Context, deadline time.Time, request []byte) (*answer, error) {
	if err := c.enter(ctx, deadline); err != nil {
		return nil, err
	}
	defer c.pool.leave()
	for {
		cn, err := c.connect(ctx, deadline)
		if err != nil {
			return nil, err
		}
		used := cn.used
		a, keep, err := cn.exchange(ctx, deadline, request)
		if keep {
			c.pool.put(cn)
		} else {
			_ = cn.Close() // whatever it says, nobody uses it again
		}
		switch {
		case err == nil:
			return a.judge()
		case !used || ctx.Err() != nil || !away(err) || !time.Now().Before(deadline):
			return nil, err
		}
		c.pool.stale()
	}
}

// enter and connect obey a deadline that the context does not know of.
func (c *Client) enter(ctx context.Context, deadline time.Time) error {
	select {
	case c.pool.slots <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return c.pool.enter(ctx)
}

func (c *Client) connect(ctx context.Context, deadline time.Time) (*conn, error) {
	if cn := c.pool.kept(); cn != nil {
		return cn, nil
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return c.pool.open(ctx)
}

// pause is how long to wait after the attempt of that number.
func pause(err error, attempt int) time.Duration {
	var p *api.Problem
	if errors.As(err, &p) && p.RetryAfter > 0 {
		return jitter(min(p.RetryAfter, maxRetryAfter), 1.25)
	}
	return jitter(min(firstPause<<min(attempt, 16), lastPause)*2/3, 1.5)
}

// jitter is a random time from d to factor × d, so that those who were refused
// together do not come back together.
func jitter(d time.Duration, factor float64) time.Duration {
	return d + time.Duration(rand.Float64()*(factor-1)*float64(d))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
