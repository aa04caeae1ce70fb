package gate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
)

const (
	refusalOfOne = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 3\r\nConnection: close\r\n\r\none"
	refusalInAll = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\nConnection: close\r\n\r\nall"
)

func config(ln net.Listener, inAll, ofOne int) ConnsConfig {
	return ConnsConfig{Listener: ln, InAll: inAll, OfOne: ofOne, OfOneRefusal: []byte(refusalOfOne), InAllRefusal: []byte(refusalInAll)}
}

// socket is a listener with limits in a new directory, and what it accepted.
func socket(t *testing.T, inAll, ofOne int) (*Conns, string, <-chan *Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	must(t, err)
	l := NewConns(config(ln, inAll, ofOne))
	accepted := make(chan *Conn, 100)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c.(*Conn)
		}
	}()
	t.Cleanup(func() {
		must(t, l.Close())
		for c := range accepted {
			_ = c.Close()
		}
	})
	return l, path, accepted
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c.(*net.UnixConn)
}

// answer is the status of what comes on a connection.
func answer(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(b)
}

// take is the server's ends of n connections, all busy.
func take(t *testing.T, accepted <-chan *Conn, n int) (conns []*Conn) {
	t.Helper()
	for range n {
		select {
		case c := <-accepted:
			c.Idle(false)
			conns = append(conns, c)
		case <-time.After(20 * time.Second):
			t.Fatal("nobody was let in")
		}
	}
	return conns
}

func none(t *testing.T, accepted <-chan *Conn) {
	t.Helper()
	select {
	case <-accepted:
		t.Fatal("one too many was let in")
	case <-time.After(50 * time.Millisecond):
	}
}

// TestConnsOfOne: who has all that one may have is refused at once, with the
// answer, whether or not he has sent anything; and let in when one has left.
func TestConnsOfOne(t *testing.T) {
	l, path, accepted := socket(t, 100, 3)
	for range 3 {
		dial(t, path)
	}
	held := take(t, accepted, 3)
	for range 10 {
		c := dial(t, path)
		_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: d\r\n\r\n"))
		must(t, err)
		if status, body := answer(t, c); status != 429 || body != "one" {
			t.Fatalf("answered %d %q", status, body)
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the answer: %d, %v, want the end", n, err)
		}
		must(t, c.Close())
		for len(l.refusals) > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	none(t, accepted)
	must(t, held[0].Close())
	_ = held[0].Close() // counts once
	dial(t, path)
	again := take(t, accepted, 1)
	c := dial(t, path)
	_, err := c.Write([]byte("x"))
	must(t, err)
	if status, _ := answer(t, c); status != 429 {
		t.Errorf("answered %d: closing twice gave two places free", status)
	}
	must(t, errors.Join(again[0].Close(), held[1].Close(), held[2].Close()))
}

// TestConnsImpatientRefusal: where many are being refused at once, the others
// are answered and closed without waiting for them.
func TestConnsImpatientRefusal(t *testing.T) {
	l, path, accepted := socket(t, 32, 1) // two are refused with patience
	dial(t, path)
	held := take(t, accepted, 1)
	for range cap(l.refusals) {
		dial(t, path) // and say nothing
	}
	for len(l.refusals) < cap(l.refusals) {
		time.Sleep(time.Millisecond)
	}
	c := dial(t, path)
	if status, _ := answer(t, c); status != 429 {
		t.Errorf("answered %d", status)
	}
	for len(l.refusals) > 0 { // their time is over
		time.Sleep(time.Millisecond)
	}
	must(t, held[0].Close())
}

// TestConnsIdleOnesGo: a connection on which nothing is asked makes room for a
// new one of the same user: the one that has been idle for longest. What was
// sent on it before is still there to be read, and nothing can be sent after.
func TestConnsIdleOnesGo(t *testing.T) {
	_, path, accepted := socket(t, 100, 3)
	var clients []*net.UnixConn
	for range 3 {
		clients = append(clients, dial(t, path))
	}
	held := take(t, accepted, 3)
	held[2].Idle(true)
	time.Sleep(time.Millisecond)
	held[1].Idle(true)
	_, err := clients[2].Write([]byte("sent"))
	must(t, err)

	dial(t, path)
	fresh := take(t, accepted, 1)
	if got, err := io.ReadAll(held[2]); string(got) != "sent" || err != nil {
		t.Errorf("read %q, %v from the one that had to go", got, err)
	}
	if _, err := clients[2].Write([]byte("late")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("a late write: %v, want that nobody reads", err)
	}
	_, err = held[2].Write([]byte("answer"))
	must(t, err)
	buf := make([]byte, 6)
	if _, err := io.ReadFull(clients[2], buf); err != nil || string(buf) != "answer" {
		t.Errorf("the answer: %q, %v", buf, err)
	}
	must(t, held[2].Close())

	dial(t, path)
	fresh = append(fresh, take(t, accepted, 1)...) // in place of held[1]
	c := dial(t, path)
	_, err = c.Write([]byte("x"))
	must(t, err)
	if status, _ := answer(t, c); status != 429 {
		t.Errorf("answered %d, want 429: none is idle any more", status)
	}
	for _, c := range append(fresh, held[0], held[1]) {
		must(t, c.Close())
	}
}

// as pretends that a connection is another user's: who a real one is, is for
// the kernel, and tested where there are real users.
func (l *Conns) as(c *Conn, who string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(c.who)
	l.open[c.who]--
	c.who = who
	l.users[who]++
	l.open[who]++
	l.held++
}

// TestConnsCountWhatHasNotEnded: connections that were told to end and have not
// yet are still their user's. Else one who connects in a loop would fill all
// places with them, and everybody else would be refused.
func TestConnsCountWhatHasNotEnded(t *testing.T) {
	_, path, accepted := socket(t, 100, 4)
	var held []*Conn
	for range 6 { // four, and two in place of the first two, which do not end
		dial(t, path)
		one := take(t, accepted, 1)[0]
		one.Idle(true)
		held = append(held, one)
	}
	c := dial(t, path)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if status, _ := answer(t, c); status != 429 {
		t.Errorf("answered %d, want 429", status)
	}
	must(t, held[0].Close())
	dial(t, path)
	for _, c := range append(held[1:], take(t, accepted, 1)...) {
		must(t, c.Close())
	}
}

// TestConnsInAll: when all places are taken, an idle connection of the user
// with the most goes; without one, of a user who has more than the newcomer will
// have; and where there is none either, he is refused, not kept waiting.
func TestConnsInAll(t *testing.T) {
	l, path, accepted := socket(t, 18, 6) // sixteen, and one that was told to end
	var held []*Conn
	for i := range 16 {
		dial(t, path)
		c := take(t, accepted, 1)[0]
		if i < 12 {
			l.as(c, fmt.Sprint(100+i/6)) // six, six, and four of the newcomer's
		}
		held = append(held, c)
	}
	comes := func() {
		t.Helper()
		dial(t, path)
		held = append(held, take(t, accepted, 1)...)
	}
	ends := func(i int) {
		t.Helper()
		if got, err := io.ReadAll(held[i]); len(got) != 0 || err != nil {
			t.Errorf("connection %d: %q, %v, want its end", i, got, err)
		}
	}
	full := func(status int) {
		t.Helper()
		c := dial(t, path)
		_, _ = c.Write([]byte("x")) // perhaps it is closed already
		if got, body := answer(t, c); got != status {
			t.Errorf("answered %d %q, want %d", got, body, status)
		}
	}
	comes() // he has four, and others six
	ends(0)
	full(503) // one was told to end and has not: nobody else gets a file descriptor
	must(t, held[0].Close())
	full(503) // he has five: he must not take from those who have six

	held[14].Idle(true) // his own
	held[8].Idle(true)
	comes()
	ends(8)
	must(t, held[8].Close())
	comes() // he has all that one may have
	ends(14)
	must(t, held[14].Close())
	full(429)
	for _, c := range held {
		_ = c.Close() // some are closed already
	}
	if len(l.conns) != 0 || len(l.users) != 0 || l.held != 0 {
		t.Errorf("left behind: %d connections, %v, %d", len(l.conns), l.users, l.held)
	}
}

// TestConnsSmall: with next to no file descriptors one still gets in.
func TestConnsSmall(t *testing.T) {
	for inAll, want := range map[int][2]int{0: {1, 1}, 1: {1, 1}, 2: {2, 1}, 8: {8, 4}, 56: {50, 25}, 512: {448, 64}} {
		l := NewConns(config(nil, inAll, 64))
		l.cancel()
		if l.inAll != want[0] || l.ofOne != want[1] {
			t.Errorf("of %d: %d and %d for one, want %v", inAll, l.inAll, l.ofOne, want)
		}
		if total := l.inAll + 2*cap(l.refusals); total > max(1, inAll) {
			t.Errorf("of %d: %d in all", inAll, total)
		}
	}
}

// TestConnsClose: closing ends Accept and whoever is being refused, and leaves
// the connections that were let in alone.
func TestConnsClose(t *testing.T) {
	l, path, accepted := socket(t, 100, 1)
	client := dial(t, path)
	held := take(t, accepted, 1)
	refused := dial(t, path)
	for len(l.refusals) == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, l.Close())
	if _, open := <-accepted; open {
		t.Error("accepted after the listener was closed")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want that it is closed", err)
	}
	if _, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the refused one: %v, want its end", err)
	}
	_, err := client.Write([]byte("x"))
	must(t, err)
	if _, err := held[0].Read(make([]byte, 1)); err != nil {
		t.Errorf("the one that was let in: %v", err)
	}
	must(t, held[0].Close())
}

// remote is a connection whose other end has an address.
type remote struct {
	net.Conn
	addr string
}

func (r remote) RemoteAddr() net.Addr { return addrText(r.addr) }

type addrText string

func (addrText) Network() string  { return "tcp" }
func (a addrText) String() string { return string(a) }

func TestAddress(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7:4711":                "192.0.2.7",
		"[::ffff:192.0.2.7]:1":          "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:80":     "2001:db8:1:2::/64",
		"[2001:db8:1:2:ffff::1]:9":      "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":             "fe80::/64",
		"@":                             "",
		"/run/keyturn/sign.sock":        "",
		"tokens.example.com:443":        "",
		"[2001:db8:1:2:3:4:5:6%a]:port": "",
	} {
		if got := Address(remote{addr: addr}); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
}

// TestConnsAbrupt: an idle connection that makes room is closed there and then,
// and its place is free before its server has noticed.
func TestConnsAbrupt(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	cfg := config(ln, 16, 2)
	cfg.Who, cfg.Abrupt = Address, true
	l := NewConns(cfg)
	defer func() { must(t, l.Close()) }()
	var clients, held []net.Conn
	for range 10 { // none of those that are held is closed by a server
		c, err := net.Dial("tcp", ln.Addr().String())
		must(t, err)
		defer c.Close()
		one, err := l.Accept()
		must(t, err)
		clients, held = append(clients, c), append(held, one)
	}
	for i, c := range clients[:8] {
		must(t, c.SetReadDeadline(time.Now().Add(20*time.Second)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("connection %d is open: %v", i, err)
		}
	}
	if l.held != 2 || l.open["127.0.0.1"] != 2 || len(l.conns) != 2 {
		t.Errorf("%d held, %d open, %d known", l.held, l.open["127.0.0.1"], len(l.conns))
	}
	for _, c := range held {
		_ = c.Close() // most are closed, and count no more
	}
	if l.held != 0 || len(l.open) != 0 || len(l.users) != 0 || len(l.conns) != 0 {
		t.Errorf("after all have gone: %d held, %v, %v", l.held, l.open, l.users)
	}
}
