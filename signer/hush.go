package signer

import (
	"context"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// quiet knows the connections on which nobody is being answered. A server
// that is shut down closes them, read or unread; hush makes sure first that
// nothing unread is on any of them.
type quiet struct {
	mu     sync.Mutex
	conns  map[net.Conn]bool
	hushed bool
}

// note is the ConnState of an http.Server.
func (q *quiet) note(conn net.Conn, state http.ConnState) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if state != http.StateNew && state != http.StateIdle {
		delete(q.conns, conn)
		return
	}
	if q.conns == nil {
		q.conns = map[net.Conn]bool{}
	}
	q.conns[conn] = true
	if q.hushed {
		closeRead(conn)
	}
}

// hush takes no more requests on connections where none has begun, and waits
// for those that the kernel holds: they are read and answered, and after them
// the server meets the end of the connection. Whoever writes now is told that
// nobody reads (EPIPE), so that what has no answer was not sent either.
func (q *quiet) hush(ctx context.Context) {
	q.mu.Lock()
	q.hushed = true
	for conn := range q.conns {
		closeRead(conn)
	}
	q.mu.Unlock()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		q.mu.Lock()
		left := len(q.conns)
		q.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
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
