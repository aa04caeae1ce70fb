package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/signer/gate"
)

// How many connections a listener holds at once. Whoever comes after that waits
// in the kernel's queue, but at a sign socket, where gate.Conns makes room or
// refuses. Strangers on one listener cannot take the file
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

// signListener bounds the connections to a sign socket, in all and of each user.
func (d *daemon) signListener(ln net.Listener, sock configs.SignSocket) net.Listener {
	ofOne := api.NewProblem(api.RateLimited, "this user holds as many connections to this socket as one user may, with a request on each: keep fewer, send batches, or raise connections_per_user")
	inAll := api.NewProblem(api.Unavailable, "all connections to this socket are held, with a request on each; ask again")
	told, count := &refusals{log: d.log.With("socket", sock.Name)}, d.metrics.Refusals(sock.Name)
	return gate.NewConns(gate.ConnsConfig{
		Listener: ln, InAll: d.conns(signConns), OfOne: sock.ConnectionsPerUser,
		OfOneRefusal: response(ofOne), InAllRefusal: response(inAll),
		Refused: func(uid uint32) {
			count()
			told.note(uid)
		},
	})
}

// quietFor is how long nothing is logged of refusals after one was.
const quietFor = 10 * time.Second

// refusals logs connections that were refused: the first at once, then how many
// there were, so that whoever connects in a loop does not fill the log.
type refusals struct {
	log *slog.Logger

	mu    sync.Mutex
	count int
	last  time.Time
}

func (r *refusals) note(uid uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count++; time.Since(r.last) < quietFor {
		return
	}
	r.log.Warn("connections refused", "count", r.count, "last_uid", uid)
	r.count, r.last = 0, time.Now()
}

// response is a problem as it goes over the wire, for a connection that no
// HTTP server gets to see.
func response(p *api.Problem) []byte {
	body, err := json.Marshal(p)
	if err != nil { // it holds nothing that could fail
		panic(err)
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nCache-Control: no-store\r\nRetry-After: %d\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		p.Status, http.StatusText(p.Status), api.ProblemType, int(p.RetryAfter/time.Second), len(body), body)
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
