package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
)

// ConnsConfig is what Conns are made of.
type ConnsConfig struct {
	Listener net.Listener
	// Who is the user whose connection it is. nil takes what the kernel says of
	// the other end of a Unix socket, its uid in decimal; Address is for TCP.
	Who func(net.Conn) string
	// InAll is how many connections, and so file descriptors, there may be at
	// once. An eighth of them, or 64, are kept for those that are being refused
	// and those that were told to end.
	InAll int
	// OfOne is how many of them one user may hold; never more than half of InAll.
	OfOne int
	// Abrupt closes an idle connection that has to make room, instead of telling
	// it to end: the room is there at once, and a request that was just being sent
	// on it is lost. It is for requests that clients repeat by themselves.
	Abrupt bool
	// OfOneRefusal and InAllRefusal are what is written to a connection that is
	// refused before it is closed: an HTTP response; nothing where TLS would be
	// expected.
	OfOneRefusal, InAllRefusal []byte
	// Refused learns whose connection is refused; nil is fine. It must not block.
	Refused func(who string)
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
// Such a connection is told to end, or closed (Abrupt). A request that was sent on an idle one is
// still answered; one that is being sent, or worked on, may be broken off.
// Whoever writes later learns that nobody reads. Where there is no such
// connection the newcomer is refused.
type Conns struct {
	net.Listener
	inAll, ofOne           int
	ofOneRefusal, inAllRef []byte
	abrupt                 bool
	who                    func(net.Conn) string
	refused                func(who string)
	refusals               chan struct{}   // one for each connection that is being refused with patience
	stop                   context.Context // ends with Close
	cancel                 context.CancelFunc
	ended                  sync.WaitGroup // of those who are being refused

	mu    sync.Mutex
	conns map[*Conn]struct{}
	users map[string]int // connections that were not told to end
	open  map[string]int // all that are not closed
	held  int            // the sum of users
}

// NewConns does not accept anything yet.
func NewConns(cfg ConnsConfig) *Conns {
	reserve := min(32, cfg.InAll/16)
	inAll := max(1, cfg.InAll-2*reserve)
	if cfg.Who == nil {
		cfg.Who = uid
	}
	if cfg.Refused == nil {
		cfg.Refused = func(string) {}
	}
	stop, cancel := context.WithCancel(context.Background())
	return &Conns{
		Listener: cfg.Listener, inAll: inAll, ofOne: max(1, min(cfg.OfOne, inAll/2)),
		ofOneRefusal: cfg.OfOneRefusal, inAllRef: cfg.InAllRefusal,
		abrupt: cfg.Abrupt, who: cfg.Who, refused: cfg.Refused,
		refusals: make(chan struct{}, reserve), stop: stop, cancel: cancel,
		conns: map[*Conn]struct{}{}, users: map[string]int{}, open: map[string]int{},
	}
}

// Accept is the next connection for which there is room.
func (l *Conns) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		who := l.who(raw)
		if c, refusal := l.admit(raw, who); c != nil {
			return c, nil
		} else {
			l.refused(who)
			l.refuse(raw, refusal)
		}
	}
}

// admit finds room for a connection, or says how to refuse it.
func (l *Conns) admit(raw net.Conn, who string) (*Conn, []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.open[who] >= l.ofOne+max(1, l.ofOne/2): // his own that were told to end, and have not yet
		return nil, l.ofOneRefusal
	case len(l.conns) >= l.inAll+cap(l.refusals): // too many were told to end, and have not yet
		return nil, l.inAllRef
	case l.users[who] >= l.ofOne:
		if !l.evict(who, (*Conn).idleSince) {
			return nil, l.ofOneRefusal
		}
	case l.held >= l.inAll:
		if !l.evictAny(who) {
			return nil, l.inAllRef
		}
	}
	c := &Conn{Conn: raw, conns: l, who: who}
	c.Idle(true)
	l.conns[c] = struct{}{}
	l.users[who]++
	l.open[who]++
	l.held++
	return c, nil
}

// evictAny makes room for a user at the cost of the one with the most. The
// caller holds mu.
func (l *Conns) evictAny(newcomer string) bool {
	if whose, _ := l.most((*Conn).idleSince); l.evict(whose, (*Conn).idleSince) {
		return true
	}
	whose, has := l.most((*Conn).busySince)
	return has > l.users[newcomer]+1 && l.evict(whose, (*Conn).busySince)
}

// most is the user who holds the most connections, of those who have one in a
// state, and how many. The caller holds mu.
func (l *Conns) most(since func(*Conn) int64) (whose string, most int) {
	for c := range l.conns {
		if n := l.users[c.who]; !c.ending && since(c) != 0 && (n > most || n == most && c.who < whose) {
			whose, most = c.who, n
		}
	}
	return whose, most
}

// evict tells the user's connection to end that has been in a state for
// longest. The caller holds mu.
func (l *Conns) evict(who string, since func(*Conn) int64) bool {
	var oldest *Conn
	var from int64
	for c := range l.conns {
		if at := since(c); !c.ending && c.who == who && at != 0 && (oldest == nil || at < from) {
			oldest, from = c, at
		}
	}
	if oldest == nil {
		return false
	}
	oldest.ending = true
	l.forget(oldest.who)
	if l.abrupt && oldest.idleSince() != 0 {
		_ = oldest.Conn.Close() // its server learns of it, and closes it once more
		l.remove(oldest)
		return true
	}
	oldest.closeRead()
	return true
}

// forget takes one connection off the user's account. The caller holds mu.
func (l *Conns) forget(who string) {
	l.held--
	if l.users[who]--; l.users[who] == 0 {
		delete(l.users, who)
	}
}

func (l *Conns) gone(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.conns[c]; !there {
		return
	}
	l.remove(c)
	if !c.ending {
		l.forget(c.who)
	}
}

// remove forgets a connection that is closed. The caller holds mu.
func (l *Conns) remove(c *Conn) {
	delete(l.conns, c)
	if l.open[c.who]--; l.open[c.who] == 0 {
		delete(l.open, c.who)
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
