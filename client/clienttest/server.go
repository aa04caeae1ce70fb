package clienttest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/keyring"
)

// Config is what New takes. The zero value signs whatever is asked for.
type Config struct {
	// Profiles are those that there are. Without any, every name is one, with
	// any subject, audience and claims; what a request leaves out is made up.
	Profiles []Profile
	// Algorithm of the keys. [ES256]
	Algorithm keyring.Algorithm
	// Issuer is the tokens' iss and the issuer of the discovery document. [the
	// URL at which these are served]
	Issuer string
}

// Profile is a profile as GET /v1/profiles lists it, so that a test can use the
// real ones, and what only the daemon knows of it. TTLs that are left out are
// five minutes and an hour. Issuer and Ring are not looked at, and the
// algorithm is the Config's.
type Profile struct {
	api.Profile
	// Add holds claims that are put into every token, as values for encoding/json.
	Add map[string]any
}

// Server is a daemon for tests. Its methods may be called concurrently, from
// the test's goroutine where they can fail the test.
type Server struct {
	t        testing.TB
	socket   string
	public   *httptest.Server
	client   *client.Client
	profiles []profile
	alg      keyring.Algorithm
	issuer   string

	mu       sync.Mutex
	keys     []key // the last one signs
	failure  api.Code
	shift    time.Duration
	requests []api.SignRequest
	running  *running // nil while it is down
}

// running is a sign socket that is served.
type running struct {
	srv  *http.Server
	done chan error
}

// New starts a daemon, which ends with the test.
func New(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Algorithm == "" {
		cfg.Algorithm = keyring.ES256
	}
	s := &Server{t: t, alg: cfg.Algorithm, issuer: cfg.Issuer, socket: filepath.Join(shortDir(t), "sign.sock")}
	for _, p := range cfg.Profiles {
		compiled, err := compile(p, cfg.Algorithm)
		if err != nil {
			t.Fatalf("clienttest: profile %q: %v", p.Name, err)
		}
		s.profiles = append(s.profiles, compiled)
	}
	s.public = httptest.NewServer(s.publicHandler())
	t.Cleanup(s.public.Close)
	if s.issuer == "" {
		s.issuer = s.public.URL
	}
	s.Rotate()
	var err error
	if s.client, err = client.New(client.Config{Socket: s.socket}); err != nil {
		t.Fatalf("clienttest: %v", err)
	}
	s.Up()
	t.Cleanup(func() {
		if err := s.client.Close(); err != nil {
			t.Error(err)
		}
		s.Down()
	})
	return s
}

// shortDir is a folder of the test's whose path leaves room for a socket's
// name: the kernel takes 107 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if len(dir) < 90 {
		return dir
	}
	dir, err := os.MkdirTemp("/tmp", "keyturn-")
	if err != nil {
		t.Fatalf("clienttest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Socket is the path of the sign socket, for KEYTURN_SOCKET or client.Config.
func (s *Server) Socket() string { return s.socket }

// Client is a client of the socket. It is closed with the test.
func (s *Server) Client() *client.Client { return s.client }

// Issuer is the tokens' iss.
func (s *Server) Issuer() string { return s.issuer }

// URL is where the documents are served: URL/.well-known/openid-configuration
// and URL/.well-known/jwks.json.
func (s *Server) URL() string { return s.public.URL }

// JWKSURL is where the key set is served.
func (s *Server) JWKSURL() string { return s.public.URL + "/.well-known/jwks.json" }

// Down ends the daemon as a restart does: its connections break, and its socket
// is gone. The key set is still served.
func (s *Server) Down() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return
	}
	if err := s.running.srv.Close(); err != nil { // takes the socket away as well
		s.t.Errorf("clienttest: %v", err)
	}
	<-s.running.done
	s.running = nil
}

// Up starts the daemon again after Down, with the same keys.
func (s *Server) Up() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return
	}
	ln, err := new(net.ListenConfig).Listen(s.t.Context(), "unix", s.socket)
	if err != nil {
		s.t.Fatalf("clienttest: %v", err)
	}
	r := &running{srv: &http.Server{Handler: s.signHandler(), ReadHeaderTimeout: time.Minute}, done: make(chan error, 1)}
	go func() { r.done <- r.srv.Serve(ln) }()
	s.running = r
}

// Fail makes the daemon refuse every request with this code, as it does with
// api.Unavailable, api.SigningLapsed, api.NoActiveKey or api.RateLimited; ""
// ends that.
func (s *Server) Fail(code api.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = code
}

// Shift moves the clock by which tokens are dated: a negative time makes tokens
// as they were then, which have expired if they were short.
func (s *Server) Shift(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shift = d
}

// Rotate makes a new key, which signs from now on, and returns its kid. The
// earlier ones stay in the set.
func (s *Server) Rotate() string {
	s.t.Helper()
	k, err := newKey(s.alg)
	if err != nil {
		s.t.Fatalf("clienttest: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys = append(s.keys, k)
	return k.jwk.Kid
}

// Revoke takes a key out of the set; where it is the one that signs, a new one
// does from now on. Its tokens die as soon as verifiers read the set again.
func (s *Server) Revoke(kid string) {
	s.t.Helper()
	if s.Kid() == kid {
		s.Rotate()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var left []key
	for _, k := range s.keys {
		if k.jwk.Kid != kid {
			left = append(left, k)
		}
	}
	s.keys = left
}

// Kid names the key that signs.
func (s *Server) Kid() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[len(s.keys)-1].jwk.Kid
}

// Requests are those that came so far, in their order: good ones, refused ones,
// and those in batches.
func (s *Server) Requests() []api.SignRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]api.SignRequest(nil), s.requests...)
}

// Token makes a token as the socket would, for tests of code that takes tokens.
func (s *Server) Token(req api.SignRequest) string {
	s.t.Helper()
	resp, prob := s.answer(req)
	if prob != nil {
		s.t.Fatalf("clienttest: %v", prob)
	}
	return resp.Token
}
