package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/keyturn/keyturn/internal/unixsock"
)

// ConnsConfig is what Conns are made of.
type ConnsConfig struct {
	// Listener is a Unix listener.
	Listener net.Listener
	// InAll is how many connections, and so file descriptors, there may be at
	// once. An eighth of them, or 64, are kept for those that are being refused
	// and those that were told to end.
	InAll int
	// OfOne is how many of them one user may hold; never more than half of InAll.
	OfOne int
	// OfOneRefusal and InAllRefusal are what is written to a connection that is
	// refused before it is closed: an HTTP response.
	OfOneRefusal, InAllRefusal []byte
	// Refused learns whose connection is refused; nil is fine. It must not block.
	Refused func(uid uint32)
}

// Conns is a listener that bounds the connections in all and of each user.
//
// It never stops accepting, so that nobody waits in the kernel's queue behind
// others. One for whom there is no room takes the place of another connection:
//
//   - of his own that has been idle for longest, where he has all that he may have;
//   - where nobody has room, of the idle one of the user with the most, and
//     where none is idle, of the one with the oldest request of the user with the
//     most, if he has more than the newcomer would have.
//
// Such a connection is told to end. A request that was sent on an idle one is
// still answered; one that is being sent, or worked on, may be broken off.
// Whoever writes later learns that nobody reads. Where there is no such
// connection the newcomer is refused.
type Conns struct {
	net.Listener
	inAll, ofOne           int
	ofOneRefusal, inAllRef []byte
	refused                func(uid uint32)
	refusals               chan struct{}   // one for each connection that is being refused with patience
	stop                   context.Context // ends with Close
	cancel                 context.CancelFunc
	ended                  sync.WaitGroup // of those who are being refused

	mu    sync.Mutex
	conns map[*Conn]struct{}
	users map[uint32]int // connections that were not told to end
	open  map[uint32]int // all that are not closed
	held  int            // the sum of users
}

// NewConns does not accept anything yet.
func NewConns(cfg ConnsConfig) *Conns {
	reserve := min(32, cfg.InAll/16)
	inAll := max(1, cfg.InAll-2*reserve)
	if cfg.Refused == nil {
		cfg.Refused = func(uint32) {}
	}
	stop, cancel := context.WithCancel(context.Background())
	return &Conns{
		Listener: cfg.Listener, inAll: inAll, ofOne: max(1, min(cfg.OfOne, inAll/2)),
		ofOneRefusal: cfg.OfOneRefusal, inAllRef: cfg.InAllRefusal, refused: cfg.Refused,
		refusals: make(chan struct{}, reserve), stop: stop, cancel: cancel,
		conns: map[*Conn]struct{}{}, users: map[uint32]int{}, open: map[uint32]int{},
	}
}

// Accept is the next connection for which there is room.
func (l *Conns) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		peer, _ := unixsock.PeerOf(raw) // all of whom the kernel does not tell are one user, unixsock.Unknown
		if c, refusal := l.admit(raw, peer.UID); c != nil {
			return c, nil
		} else {
			l.refused(peer.UID)
			l.refuse(raw, refusal)
		}
	}
}

// admit finds room for a connection, or says how to refuse it.
func (l *Conns) admit(raw net.Conn, uid uint32) (*Conn, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open[uid] >= l.ofOne+max(1, l.ofOne/2): // his own that were told to end, and have not yet
		return nil, l.ofOneRefusal
	case len(l.conns) >= l.inAll+cap(l.refusals): // too many were told to end, and have not yet
		return nil, l.inAllRef
	case l.users[uid] >= l.ofOne:
		if !l.evict(uid, (*Conn).idleSince) {
			return nil, l.ofOneRefusal
		}
	case l.held >= l.inAll:
		if !l.evictAny(uid) {
			return nil, l.inAllRef
		}
	}
	c := &Conn{Conn: raw, conns: l, uid: uid}
	c.Idle(true)
	l.conns[c] = struct{}{}
	l.users[uid]++
	l.open[uid]++
	l.held++
	return c, nil
}

// evictAny makes room for a user at the cost of the one with the most. The
// caller holds mu.
func (l *Conns) evictAny(newcomer uint32) bool {
	if whose, _ := l.most((*Conn).idleSince); l.evict(whose, (*Conn).idleSince) {
		return true
	}
	whose, has := l.most((*Conn).busySince)
	return has > l.users[newcomer]+1 && l.evict(whose, (*Conn).busySince)
}

// most is the user who holds the most connections, of those who have one in a
// state, and how many. The caller holds mu.
func (l *Conns) most(since func(*Conn) int64) (whose uint32, most int) {
	for c := range l.conns {
		if n := l.users[c.uid]; !c.ending && since(c) != 0 && (n > most || n == most && c.uid < whose) {
			whose, most = c.uid, n
		}
	}
	return whose, most
}

// evict tells the user's connection to end that has been in a state for
// longest. The caller holds mu.
func (l *Conns) evict(uid uint32, since func(*Conn) int64) bool {
	var oldest *Conn
	var from int64
	for c := range l.conns {
		if at := since(c); !c.ending && c.uid == uid && at != 0 && (oldest == nil || at < from) {
			oldest, from = c, at
		}
	}
	if oldest == nil {
		return false
	}
	oldest.ending = true
	l.forget(oldest.uid)
	oldest.closeRead()
	return true
}

// forget takes one connection off the user's account. The caller holds mu.
func (l *Conns) forget(uid uint32) {
	l.held--
	if l.users[uid]--; l.users[uid] == 0 {
		delete(l.users, uid)
	}
}

func (l *Conns) gone(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.conns[c]; !there {
		return
	}
	delete(l.conns, c)
	if l.open[c.uid]--; l.open[c.uid] == 0 {
		delete(l.open, c.uid)
	}
	if !c.ending {
		l.forget(c.uid)
	}
}

// Close ends Accept. Connections that were accepted live on.
func (l *Conns) Close() error {
	l.mu.Lock()
	l.cancel() // under mu, so that nobody joins those who are waited for
	l.mu.Unlock()
	err := l.Listener.Close()
	l.ended.Wait() // they see that it has stopped
	return err
}

// File is a second handle on the queue: with it a sign socket answers those who
// had connected before it closed.
func (l *Conns) File() (*os.File, error) {
	ln, ok := l.Listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fmt.Errorf("a %T has no file: %w", l.Listener, errors.ErrUnsupported)
	}
	return ln.File()
}
