package gate

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a connection that Conns let in. It counts until it is closed.
type Conn struct {
	net.Conn
	conns  *Conns
	who    string
	idle   atomic.Int64 // since when nothing was asked, in nanoseconds since 1970; 0 while a request is on it
	busy   atomic.Int64 // since when, likewise; 0 while it is idle
	ending bool         // it was told to; Conns.mu guards it
}

// Idle says that nothing has been asked on the connection, or that all that was
// asked is answered; and, with false, that a request has begun. A new one is idle.
func (c *Conn) Idle(idle bool) {
	now := time.Now().UnixNano()
	if idle {
		c.busy.Store(0)
		c.idle.Store(now)
	} else {
		c.idle.Store(0)
		c.busy.Store(now)
	}
}

func (c *Conn) idleSince() int64 { return c.idle.Load() }
func (c *Conn) busySince() int64 { return c.busy.Load() }

// Close gives the place free.
func (c *Conn) Close() error {
	err := c.Conn.Close() // the file descriptor first
	c.conns.gone(c)
	return err
}

// SyscallConn is what the peer's credentials are read from.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T is no socket: %w", c.Conn, errors.ErrUnsupported)
	}
	return sc.SyscallConn()
}

// CloseWrite lets the HTTP server say its last words before it closes on a
// client that is still sending.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T has no halves: %w", c.Conn, errors.ErrUnsupported)
	}
	return half.CloseWrite()
}

// closeRead shuts the reading half: what has arrived can still be read and
// answered, and who writes from now on is told so (EPIPE).
func (c *Conn) closeRead() {
	raw, err := c.SyscallConn()
	if err != nil {
		return // it is closed already
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) }) // so is one on which this fails
}
