package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// How many connections a listener holds at once; whoever comes after that waits
// in the kernel's queue. Strangers on one listener cannot take the file
// descriptors of another, of Vault's connections, or of the files.
const (
	publicConns = 512
	statusConns = 64
	adminConns  = 64
	signConns   = 512 // of each socket
)

// conns is how many of the wanted connections a listener gets: all of them,
// where all listeners together need no more than half of the process's file
// descriptors; else its share of that half.
func (d *daemon) conns(want uint64) int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 0 // not known: as little as can be
	}
	total := uint64(publicConns+statusConns+adminConns) + signConns*uint64(len(d.options.Config.Listen.Sign))
	return share(want, total, limit.Cur/2)
}

func share(want, total, have uint64) int {
	if have < total {
		want = max(1, want*have/total)
	}
	return int(want)
}

// limited is a listener that holds so many connections at once and no more.
type limited struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func limit(ln net.Listener, conns int) *limited {
	return &limited{Listener: ln, slots: make(chan struct{}, conns), closed: make(chan struct{})}
}

// Accept waits until there is room. Closing the listener ends the wait.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &counted{Conn: c, leave: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limited) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// File is a second handle on the queue: with it a sign socket answers those
// who had connected before it closed.
func (l *limited) File() (*os.File, error) {
	ln, ok := l.Listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a %T has no file: %w", l.Listener, errors.ErrUnsupported)
	}
	return ln.File()
}

// counted is a connection that holds a slot until it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// SyscallConn is what the peer's credentials are read from.
func (c *counted) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T is no socket: %w", c.Conn, errors.ErrUnsupported)
	}
	return sc.SyscallConn()
}

// CloseWrite lets the HTTP server say its last words before it closes on a
// client that is still sending.
func (c *counted) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("a %T has no halves: %w", c.Conn, errors.ErrUnsupported)
	}
	return half.CloseWrite()
}
