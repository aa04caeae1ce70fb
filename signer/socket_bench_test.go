package signer

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyring"
)

// BenchmarkSocket is a request through the shipped server over a real Unix
// socket, one at a time. The client allocates nothing, so the allocations are
// the daemon's: of one token, and of a batch of 64. `make bench` measures speed.
func BenchmarkSocket(b *testing.B) {
	for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.EdDSA} {
		for _, batch := range []int{0, 64} {
			name, path, body := "one", "/v1/sign", strings.Replace(orderBody, "p-ES256", "p-"+string(alg), 1)
			if batch > 0 {
				name, path = fmt.Sprintf("batch%d", batch), "/v1/sign/batch"
				body = `{"requests":[` + strings.Repeat(body+",", batch-1) + body + `]}`
			}
			b.Run(fmt.Sprintf("%s/%s", alg, name), func(b *testing.B) {
				w := newWorld(b, alg)
				w.cfg.Audit, w.cfg.AuditOptional = nil, true
				socket := w.mine().start().ready().listen("default")
				conn, err := net.Dial("unix", socket)
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = conn.Close() }()
				c := lean{Conn: conn, answer: make([]byte, 1<<20), tokens: max(batch, 1)}
				c.request = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: keyturn\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
				c.ask(b) // it fills the daemon's pools
				b.ReportAllocs()
				for b.Loop() {
					c.ask(b)
				}
			})
		}
	}
}

// lean is a client that allocates nothing while it asks.
type lean struct {
	net.Conn
	request, answer []byte
	tokens          int // in an answer
}

func (c lean) ask(b *testing.B) {
	b.Helper()
	if _, err := c.Write(c.request); err != nil {
		b.Fatal(err)
	}
	for n := 0; ; {
		got, err := c.Read(c.answer[n:])
		if err != nil {
			b.Fatal(err)
		}
		n += got
		if !bytes.HasPrefix(c.answer[:n], []byte("HTTP/1.1 200 OK\r\n")) {
			b.Fatalf("answered %.300s", c.answer[:n])
		}
		end := "}\n"
		if bytes.Contains(c.answer[:n], []byte("\r\nTransfer-Encoding: chunked\r\n")) {
			end = "\r\n0\r\n\r\n"
		}
		if bytes.HasSuffix(c.answer[:n], []byte(end)) && bytes.Count(c.answer[:n], []byte(`"token":"`)) == c.tokens {
			return
		}
	}
}
