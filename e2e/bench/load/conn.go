package load

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// redialEvery is how long a connection rests that was closed, or not taken.
const redialEvery = 5 * time.Millisecond

// conn is a connection with at most one request on its way.
type conn struct {
	index, fd int
	buf       []byte // what has come of an answer is buf[:n]
	n         int
	began     time.Duration // since the start: when it was sent, or was due
	counts    bool          // at an even rate: it fell due in the window
	waiting   bool          // for an answer
}

func (c *conn) close() {
	if c.fd >= 0 {
		_ = syscall.Close(c.fd) // nothing was written that could be lost
	}
	c.fd = -1
}

// dial connects. A Unix socket does so at once or not at all: where too many
// wait to be accepted, it is told to come again.
func (g *generator) dial(c *conn) error {
	family, addr, err := address(g.cfg.Network, g.cfg.Addr)
	if err != nil {
		return err
	}
	if c.fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if family == syscall.AF_INET {
		err = errors.Join(syscall.SetsockoptInt(c.fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
			syscall.Connect(c.fd, addr), syscall.SetNonblock(c.fd, true))
	} else {
		err = errors.Join(syscall.SetNonblock(c.fd, true), syscall.Connect(c.fd, addr))
	}
	if err == nil {
		err = g.poll.add(c.fd, c.index)
	}
	if err != nil {
		c.close()
		return fmt.Errorf("connect to %s: %w", g.cfg.Addr, err)
	}
	c.n, c.waiting = 0, false
	return nil
}

func address(network, addr string) (int, syscall.Sockaddr, error) {
	if network == "unix" {
		return syscall.AF_UNIX, &syscall.SockaddrUnix{Name: addr}, nil
	}
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return 0, nil, err
	}
	return syscall.AF_INET, &syscall.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(tcp.IP.To4())}, nil
}

// send asks. A request is far smaller than a socket's buffer, which is empty
// when there is no other on its way, so that a write of a part is a fault.
func (g *generator) send(c *conn) error {
	n, errno := write(c.fd, g.cfg.Request)
	if errno != 0 || n != len(g.cfg.Request) {
		return g.lost(c, fmt.Errorf("wrote %d of %d bytes: %w", n, len(g.cfg.Request), errno))
	}
	c.n, c.waiting = 0, true
	return nil
}

// readable takes what has come; a whole answer is looked at and the
// connection asks again.
func (g *generator) readable(c *conn) error {
	if c.fd < 0 {
		return nil
	}
	if c.n == len(c.buf) {
		c.buf = append(c.buf, make([]byte, len(c.buf))...)
	}
	n, errno := read(c.fd, c.buf[c.n:])
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		return nil
	case errno != 0:
		return g.lost(c, errno)
	case n == 0:
		return g.lost(c, errors.New("the server closed the connection"))
	case !c.waiting:
		return g.lost(c, fmt.Errorf("the server sent %d bytes that nobody asked for", n))
	}
	c.n += n
	ans, whole, err := parse(c.buf[:c.n])
	if err != nil || !whole {
		return err
	}
	c.waiting = false
	g.now = time.Since(g.started)
	if err := g.take(c, ans); err != nil {
		return err
	}
	return g.free(c)
}

// take counts an answer, and refuses one that is not what was asked for.
func (g *generator) take(c *conn, ans answer) error {
	counts := g.measuring && (g.now < g.to || g.res.Requests == 0)
	if g.interval > 0 {
		if counts = c.counts; counts {
			g.inWindow--
		}
	}
	if ans.status != 200 {
		if !g.cfg.Tolerate {
			return fmt.Errorf("status %d: %.300s", ans.status, ans.body)
		}
		if counts {
			g.res.Refused++
		}
		return nil
	}
	if err := g.tokens(ans.body); err != nil {
		return err
	}
	if counts {
		g.res.Requests++
		g.res.Tokens += int64(g.cfg.Answer.Tokens)
		g.hist.add(g.now - c.began)
	}
	return nil
}

// lost is called with a connection that is of no more use.
func (g *generator) lost(c *conn, why error) error {
	if !g.cfg.Tolerate {
		return fmt.Errorf("connection %d: %w", c.index, why)
	}
	c.close()
	if g.interval > 0 && c.waiting && c.counts {
		g.inWindow--
	}
	c.waiting = false
	c.began = g.now
	g.dead = append(g.dead, c)
	g.res.Reconnects++
	return nil
}

// redial tries the closed connections again that have rested, the oldest first.
func (g *generator) redial() error {
	for len(g.dead) > 0 && g.now-g.dead[0].began >= redialEvery {
		c := g.dead[0]
		g.dead = g.dead[1:]
		if err := g.dial(c); err != nil {
			c.began = g.now
			g.dead = append(g.dead, c)
			continue
		}
		if err := g.free(c); err != nil {
			return err
		}
	}
	return nil
}
