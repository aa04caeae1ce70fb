package socket

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quiet knows the connections on which nobody is being answered. A server
// that is shut down closes them, read or unread; hush makes sure first that
// nothing unread is on any of them.
type quiet struct {
	hushed atomic.Bool

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// note is the ConnState of an http.Server whose connections are of type conn.
// It is called twice for each request.
func (q *quiet) note(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok {
		return
	}
	idle := state == http.StateNew || state == http.StateIdle
	c.note(idle)
	switch state {
	case http.StateNew:
		q.mu.Lock()
		if q.conns == nil {
			q.conns = map[*conn]struct{}{}
		}
		q.conns[c] = struct{}{}
		q.mu.Unlock()
	case http.StateClosed, http.StateHijacked:
		q.mu.Lock()
		delete(q.conns, c)
		q.mu.Unlock()
	}
	// It is idle before hushed is asked: either this sees that, or hush the other.
	if idle && q.hushed.Load() {
		closeRead(c)
	}
}

// hush takes no more requests on connections where none has begun, and waits
// for those that the kernel holds: they are read and answered, and after them
// the server meets the end of the connection. Whoever writes now is told that
// nobody reads (EPIPE), so that what has no answer was not sent either.
func (q *quiet) hush(ctx context.Context) {
	q.hushed.Store(true)
	q.idle(func(c *conn) { closeRead(c) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for q.idle(func(*conn) {}) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// idle visits the connections without a request and counts them.
func (q *quiet) idle(visit func(*conn)) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for c := range q.conns {
		if c.idle.Load() {
			visit(c)
			n++
		}
	}
	return n
}

// closeRead shuts down the reading half of a Unix connection: what has arrived
// can still be read, and nothing arrives any more.
func closeRead(conn net.Conn) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return // it is closed already
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) }) // so is one on which this fails
}

// queued reports whether somebody has connected to a listener and was not
// accepted yet.
func queued(ln syscall.Conn) bool {
	raw, err := ln.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) // 0 where it fails
	})
	return err == nil && n > 0
}
