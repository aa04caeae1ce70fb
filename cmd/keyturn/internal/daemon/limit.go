package daemon

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/signer/gate"
)

// How many connections a listener holds at once. Whoever comes after that gets
// the place of one that is idle, or of who has the most (gate.Conns): strangers
// on one listener can take neither it from others, nor the file descriptors of
// another, of Vault's connections, or of the files.
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
	return gate.NewConns(gate.ConnsConfig{
		Listener: ln, InAll: d.conns(signConns), OfOne: sock.ConnectionsPerUser,
		OfOneRefusal: response(ofOne), InAllRefusal: response(inAll),
		Refused: d.refusals("sign/" + sock.Name),
	})
}

// adminListener bounds the connections to the admin socket; one user may have half.
func (d *daemon) adminListener(ln net.Listener) net.Listener {
	held := response(api.NewProblem(api.Unavailable, "all connections to this socket are held, with a request on each; ask again"))
	return gate.NewConns(gate.ConnsConfig{
		Listener: ln, InAll: d.conns(adminConns), OfOne: adminConns, OfOneRefusal: held, InAllRefusal: held,
		Refused: d.refusals("admin"),
	})
}

// webListener bounds the connections to a TCP listener; one address may have
// half. Who is refused is not told why: TLS may be what is spoken there. What is
// asked there can be asked again.
func (d *daemon) webListener(ln net.Listener, name string, conns uint64) net.Listener {
	return gate.NewConns(gate.ConnsConfig{
		Listener: ln, Who: gate.Address, Abrupt: true, InAll: d.conns(conns), OfOne: int(conns), Refused: d.refusals(name),
	})
}

// idleness tells the listener on which of its connections nothing is asked. It
// is the ConnState of their servers.
func idleness(c net.Conn, state http.ConnState) {
	if secured, ok := c.(*tls.Conn); ok {
		c = secured.NetConn()
	}
	if counted, ok := c.(*gate.Conn); ok {
		counted.Idle(state == http.StateNew || state == http.StateIdle)
	}
}

// quietFor is how long nothing is logged of refusals after one was.
const quietFor = 10 * time.Second

// refusals counts and logs connections that a listener refused: the first at
// once, then how many there were, so that whoever connects in a loop does not
// fill the log.
func (d *daemon) refusals(listener string) func(who string) {
	count, r := d.metrics.Refusals(listener), &refusals{log: d.log.With("listener", listener)}
	return func(who string) {
		count()
		r.note(who)
	}
}

type refusals struct {
	log *slog.Logger

	mu    sync.Mutex
	count int
	last  time.Time
}

// note takes a uid, or an address.
func (r *refusals) note(who string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.count++; time.Since(r.last) < quietFor {
		return
	}
	r.log.Warn("connections refused", "count", r.count, "last", who)
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
