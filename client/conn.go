package client

import (
	"bufio"
	"context"
	"net"
	"sync"
	"time"
)

// maxIdle is for how long a connection may have been idle to be used again. It
// is less than what the daemon grants.
const maxIdle = 90 * time.Second

// conn is a connection that carries one exchange at a time.
type conn struct {
	net.Conn
	r *bufio.Reader
	// used says that it has carried an answer before: the daemon may have closed
	// it since, which says nothing about the daemon.
	used  bool
	since time.Time // idle since
}

// pool keeps connections that may be used again, the latest on top: under
// little load few are used, and the others grow old.
type pool struct {
	socket string
	dial   func(context.Context) (net.Conn, error)
	// slots bounds the exchanges under way: each holds one.
	slots chan struct{}

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

// enter waits for a slot; leave gives it back.
func (p *pool) enter(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) leave() { <-p.slots }

// kept is an idle connection, nil where there is none.
func (p *pool) kept() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	if time.Since(c.since) >= maxIdle {
		p.drop() // the others are older still
		return nil
	}
	p.idle = p.idle[:n-1]
	return c
}

// open is a new connection.
func (p *pool) open(ctx context.Context) (*conn, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	raw, err := p.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: raw, r: bufio.NewReaderSize(raw, 4<<10)}, nil
}

// put keeps a connection whose exchange is complete.
func (p *pool) put(c *conn) {
	c.used, c.since = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close() // nothing was left to be said on it
		return
	}
	p.idle = append(p.idle, c)
}

// stale closes all idle connections: one of them was dead, so the others are,
// for it is the daemon that was replaced.
func (p *pool) stale() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop()
}

// drop is called under mu.
func (p *pool) drop() {
	for i, c := range p.idle {
		_ = c.Close() // nothing was left to be said on it
		p.idle[i] = nil
	}
	p.idle = p.idle[:0]
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.drop()
}

// past ends reads and writes at once.
func past() time.Time { return time.Unix(1, 0) }

// exchange sends a request and reads its answer, until a deadline or the end of
// the context. keep says whether the connection may be used again.
func (c *conn) exchange(ctx context.Context, deadline time.Time, request []byte) (a *answer, keep bool, err error) {
	if err := c.SetDeadline(deadline); err != nil {
		return nil, false, err
	}
	if ctx.Done() != nil {
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(past()) })
		defer func() {
			if !stop() { // the deadline is moved, or is about to be
				keep = false
			}
		}()
	}
	_, broken := c.Write(request)
	a, err = readAnswer(c.r)
	switch {
	case err == nil && broken != nil:
		// It was refused before it was read to its end: whoever may not sign costs
		// the daemon no memory.
		return a, false, nil
	case broken != nil:
		return nil, false, broken
	case err != nil:
		return nil, false, err
	}
	// What follows an answer that nobody asked for would be taken for the next one.
	return a, a.keep && c.r.Buffered() == 0, nil
}
