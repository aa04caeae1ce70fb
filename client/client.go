package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// DefaultSocket is where the daemon's sign socket is unless somebody says
// otherwise, and SocketEnv the variable that says so.
const (
	DefaultSocket = "/run/keyturn/sign.sock"
	SocketEnv     = "KEYTURN_SOCKET"
)

// What a Config means that leaves something out.
const (
	DefaultTimeout  = 30 * time.Second
	DefaultMaxConns = 16
)

// maxSocketPath is what sockaddr_un holds.
const maxSocketPath = 107 // bytes

// Config is what New takes. The zero value is of use.
type Config struct {
	// Socket is the path of the sign socket. [$KEYTURN_SOCKET, or DefaultSocket]
	Socket string
	// Timeout bounds a call and its repetitions where the context has no
	// deadline of its own; one that has keeps it, longer or shorter. [30s]
	Timeout time.Duration
	// MaxConns is how many connections are open at most, and so how many calls
	// are under way; others wait for their turn. The daemon limits the
	// connections of a user, all of its programs together. [16]
	MaxConns int
}

// Client asks one sign socket. All its methods may be called concurrently; one
// Client per program is enough.
type Client struct {
	timeout time.Duration
	pool    pool
	// base ends with Close; the goroutines of sources belong to it.
	base context.Context // the lifetime of background work, not of a call
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // added to under mu while not closed
}

// New checks the configuration. It opens nothing: a daemon that is not there
// yet is found by the first call.
func New(cfg Config) (*Client, error) {
	if cfg.Socket == "" {
		cfg.Socket = os.Getenv(SocketEnv)
	}
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	switch {
	case len(cfg.Socket) > maxSocketPath:
		return nil, fmt.Errorf("keyturn client: the path of the socket has %d bytes, and the kernel takes %d: %s", len(cfg.Socket), maxSocketPath, cfg.Socket)
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("keyturn client: Timeout is %s: leave it out for %s, or give contexts a deadline", cfg.Timeout, DefaultTimeout)
	case cfg.MaxConns < 0:
		return nil, fmt.Errorf("keyturn client: MaxConns is %d: leave it out for %d", cfg.MaxConns, DefaultMaxConns)
	}
	c := &Client{timeout: cfg.Timeout}
	c.base, c.end = context.WithCancel(context.Background())
	c.pool = pool{socket: cfg.Socket, slots: make(chan struct{}, cfg.MaxConns)}
	c.pool.dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", cfg.Socket)
	}
	return c, nil
}

// Socket is the path of the socket.
func (c *Client) Socket() string { return c.pool.socket }

// Close ends the background work of the client's sources, waits for it, and
// closes connections that are idle. Calls under way finish; later ones fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.work.Wait()
	c.pool.close()
	return nil
}

// begin adds a goroutine to what Close waits for. It says whether it may start.
func (c *Client) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.work.Add(1)
	return true
}

// Sign asks for one token. What the daemon refuses is an *Error that holds an
// *api.Problem; Retryable tells whether it is worth asking again later.
func (c *Client) Sign(ctx context.Context, req api.SignRequest) (*api.SignResponse, error) {
	f := newFrame()
	defer f.release()
	if err := encodeRequest(&f.buf, &req); err != nil {
		return nil, c.failed("sign", err)
	}
	a, err := c.do(ctx, "sign", f.post("/v1/sign"))
	if err != nil {
		return nil, err
	}
	defer a.release()
	out := new(api.SignResponse)
	if err := readToken(a.body, out); err != nil {
		return nil, c.failed("sign", err)
	}
	return out, nil
}

// Profiles lists what this program may sign with through this socket.
func (c *Client) Profiles(ctx context.Context) ([]api.Profile, error) {
	f := newFrame()
	defer f.release()
	a, err := c.do(ctx, "profiles", f.get("/v1/profiles"))
	if err != nil {
		return nil, err
	}
	defer a.release()
	var out api.Profiles
	if err := decode(a.body, &out); err != nil {
		return nil, c.failed("profiles", err)
	}
	return out.Profiles, nil
}

// JWKS is the current key set of an issuer (RFC 7517 §5), as the daemon
// publishes it; issuer may be empty where the daemon has only one. It serves
// programs that verify on the same host; others fetch the published set.
func (c *Client) JWKS(ctx context.Context, issuer string) ([]byte, error) {
	path := "/v1/jwks"
	if issuer != "" {
		path += "?issuer=" + url.QueryEscape(issuer)
	}
	f := newFrame()
	defer f.release()
	a, err := c.do(ctx, "key set", f.get(path))
	if err != nil {
		return nil, err
	}
	defer a.release()
	if err := strictjson.Check(a.body); err != nil {
		return nil, c.failed("key set", fmt.Errorf("%w: %w", errNotKeyturn, err))
	}
	return append([]byte(nil), a.body...), nil
}

var errClosed = errors.New("the client is closed")
