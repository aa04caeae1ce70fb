package socket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// conn is a connection of a sign socket, as net/http uses it. It knows whether
// a request is on it, and keeps from the kernel what a short request does not need:
//
// While a handler works, net/http tries to read one byte more, in a goroutine
// of its own, to notice a caller who hangs up, and it moves the deadlines all the
// time. For a request that takes 30 µs that is a good part of the work. So such
// a read waits here at first, and becomes a real one after patience. A deadline
// is handed on when somebody reads or writes, and only if it differs from the
// last one by more than slack, which it may be early.
type conn struct {
	net.Conn
	counted     counted     // nil where nobody counts
	idle        atomic.Bool // no request is on it
	read, write deadline

	mu      sync.Mutex
	waiting chan struct{} // closed to wake a read of one byte that waits here; nil: none does
	closed  bool
}

// counted is a connection that is told whether a request is on it, as
// gate.Conn is.
type counted interface{ Idle(bool) }

func newConn(c net.Conn) *conn {
	out := &conn{Conn: c}
	out.counted, _ = c.(counted)
	return out
}

const (
	// patience is how long a read of one byte waits here.
	patience = 20 * time.Millisecond
	// slack is how much too early a deadline may be.
	slack = time.Second
)

// deadline is when reading, or writing, has to end: what was asked for, and
// what the kernel's side was told. In nanoseconds since 1970; 0 is none.
type deadline struct {
	want atomic.Int64
	// mu is held from the look at want until the kernel's side knows: else one
	// that was asked for meanwhile could be told first, and be lost.
	mu   sync.Mutex
	told int64
}

// ask notes a deadline and reports whether it cannot wait.
func (d *deadline) ask(t time.Time) (now bool) {
	if t.IsZero() {
		d.want.Store(0)
		return false
	}
	d.want.Store(t.UnixNano())
	return time.Until(t) < slack
}

// tell hands the deadline on where it has to.
func (d *deadline) tell(set func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	want, told := d.want.Load(), d.told
	if want != 0 && told != 0 && want >= told && want-told < int64(slack) || want == told {
		return nil
	}
	d.told = want
	if want == 0 {
		return set(time.Time{})
	}
	return set(time.Unix(0, want))
}

// Read is called by one goroutine at a time.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 1 && c.linger() {
		return 0, os.ErrDeadlineExceeded
	}
	if err := c.read.tell(c.Conn.SetReadDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if err := c.write.tell(c.Conn.SetWriteDeadline); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetReadDeadline is net.Conn's. One that has passed, or will soon, ends a read
// that is waiting, as net/http wants it.
func (c *conn) SetReadDeadline(t time.Time) error {
	if !c.read.ask(t) {
		return nil
	}
	c.mu.Lock()
	if c.waiting != nil {
		close(c.waiting)
		c.waiting = nil
		c.mu.Unlock()
		return nil // nobody is in the kernel
	}
	c.mu.Unlock()
	return c.read.tell(c.Conn.SetReadDeadline)
}

// SetWriteDeadline is net.Conn's.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if !c.write.ask(t) {
		return nil
	}
	return c.write.tell(c.Conn.SetWriteDeadline)
}

// SetDeadline is net.Conn's.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// linger waits for patience and reports whether the read is to end here,
// because its deadline was moved meanwhile.
func (c *conn) linger() bool {
	moved := make(chan struct{})
	c.mu.Lock()
	if at := c.read.want.Load(); at != 0 && time.Until(time.Unix(0, at)) < slack || c.closed {
		c.mu.Unlock()
		return false // the kernel's side says what there is to say
	}
	c.waiting = moved
	c.mu.Unlock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-moved:
		return !c.isClosed()
	case <-timer.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.waiting == nil // it was moved in this very moment
	c.waiting = nil
	return late && !c.closed
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Close is net.Conn's.
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.waiting != nil {
		close(c.waiting)
		c.waiting = nil
	}
	c.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn is what the peer's credentials are read from.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T is no socket: %w", c.Conn, errors.ErrUnsupported)
	}
	return sc.SyscallConn()
}

// CloseWrite lets the HTTP server say its last words before it closes on a
// client that is still sending.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T has no halves: %w", c.Conn, errors.ErrUnsupported)
	}
	return half.CloseWrite()
}

// note says whether a request is on the connection.
func (c *conn) note(idle bool) {
	c.idle.Store(idle)
	if c.counted != nil {
		c.counted.Idle(idle)
	}
}
