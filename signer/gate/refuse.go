package gate

import (
	"context"
	"net"
	"syscall"
	"time"
)

// patience is how long a connection that is refused may take to send its
// request and to read the answer.
const patience = time.Second

// refuse answers a connection and closes it, without holding up Accept. Most
// clients want to have sent their request before they see an answer, so as many
// as there is room for are given the time. The others are answered and closed
// at once.
func (l *Conns) refuse(raw net.Conn, answer []byte) {
	l.mu.Lock()
	patient := l.stop.Err() == nil
	if patient {
		select {
		case l.refusals <- struct{}{}:
			l.ended.Add(1)
		default:
			patient = false
		}
	}
	l.mu.Unlock()
	if !patient {
		say(raw, answer)
		_ = raw.Close() // there is nothing more to do for it
		return
	}
	go func() {
		defer l.ended.Done()
		defer func() { <-l.refusals }()
		l.dismiss(raw, answer)
	}()
}

// dismiss waits for the beginning of a request, answers, and waits until the
// client has hung up: to close with bytes unread would reset the connection.
func (l *Conns) dismiss(raw net.Conn, answer []byte) {
	defer func() { _ = raw.Close() }() // by Close as well, perhaps
	defer context.AfterFunc(l.stop, func() { _ = raw.Close() })()
	_ = raw.SetDeadline(time.Now().Add(patience)) // it fails on a closed one, as what follows
	var scrap [1024]byte
	if _, err := raw.Read(scrap[:]); err != nil {
		return
	}
	say(raw, answer)
	if half, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	for {
		if _, err := raw.Read(scrap[:]); err != nil {
			return
		}
	}
}

// say writes what the kernel takes without waiting: on a fresh connection, all.
func say(raw net.Conn, answer []byte) {
	sc, ok := raw.(syscall.Conn)
	if !ok {
		return
	}
	fd, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = fd.Write(func(fd uintptr) bool {
		_, _ = syscall.Write(int(fd), answer)
		return true // once is enough
	})
}
