package vaulttest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// front takes connections and carries each to a node that listens.
type front struct {
	server *Server
	nodes  []*Server
	ln     net.Listener
	all    sync.WaitGroup

	mu     sync.Mutex
	next   int
	closed bool
	open   map[net.Conn]struct{}
}

func newFront(nodes []*Server) (*front, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{nodes: nodes, ln: ln, open: map[net.Conn]struct{}{}}
	f.server = &Server{
		addr: ln.Addr().String(), root: nodes[0].root, unseal: nodes[0].unseal,
		transport: &http.Transport{DisableKeepAlives: true},
	}
	if f.server.client, err = f.server.newClient(f.server.root); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	f.all.Go(f.accept)
	return f, nil
}

func (f *front) accept() {
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return // closed
		}
		f.all.Go(func() { f.carry(conn) })
	}
}

// carry copies both ways until either side ends.
func (f *front) carry(conn net.Conn) {
	defer conn.Close()
	node := f.dial()
	if node == nil {
		return
	}
	defer node.Close()
	if !f.keep(conn, node) {
		return
	}
	defer f.forget(conn, node)
	var one sync.WaitGroup
	one.Go(func() {
		_, _ = io.Copy(node, conn) // how it ended does not matter
		_ = node.Close()
	})
	_, _ = io.Copy(conn, node)
	_ = conn.Close()
	one.Wait()
}

// dial tries every node once, and returns nil if none listens.
func (f *front) dial() net.Conn {
	f.mu.Lock()
	first := f.next
	f.next++
	f.mu.Unlock()
	for i := range f.nodes {
		node := f.nodes[(first+i)%len(f.nodes)]
		if conn, err := net.DialTimeout("tcp", node.addr, time.Second); err == nil {
			return conn
		}
	}
	return nil
}

func (f *front) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.open[c] = struct{}{}
	}
	return !f.closed
}

func (f *front) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.open, c)
	}
}

func (f *front) close() {
	_ = f.ln.Close()
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.all.Wait()
	f.server.transport.CloseIdleConnections()
}
