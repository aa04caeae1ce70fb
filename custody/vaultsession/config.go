package vaultsession

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// DefaultTimeout bounds one request.
const DefaultTimeout = 10 * time.Second

// Config says where Vault is and who we are.
type Config struct {
	// Address is https://host[:port][/path]; http:// to this host alone.
	Address string
	// Namespace is Vault Enterprise's; usually empty.
	Namespace string
	// CACertFile holds the PEM certificates that alone may sign Vault's. Empty:
	// the system's.
	CACertFile string
	// Timeout bounds one request, DefaultTimeout if zero.
	Timeout time.Duration
	// Insecure allows http:// to another host. Everything, the private halves
	// included, then crosses the network in the clear.
	Insecure bool
	Auth     Auth
	// OnLogin is called after each login that succeeded: Vault is there. It must
	// not block. [nothing]
	OnLogin func()
	Logger  *slog.Logger
}

// The methods of login.
const (
	MethodToken     = "token"
	MethodTokenFile = "token_file"
	MethodAppRole   = "approle"
)

// Auth says how to log in. Files are read anew at every login.
type Auth struct {
	// Method is token, token_file or approle.
	Method string
	// Mount is where the AppRole method is mounted, "approle" if empty.
	Mount string
	// RoleIDFile and SecretIDFile are for approle.
	RoleIDFile   string
	SecretIDFile string
	// TokenFile is for token_file: a file that something else, a Vault Agent
	// say, keeps fresh.
	TokenFile string
	// Token returns the token, for token. It is renewed, never revoked. It is a
	// function so that who prints whatever holds an Auth finds an address.
	Token func() string `json:"-"`
}

// Format implements fmt.Formatter: no verb prints the token.
func (a Auth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "vault auth "+a.Method) }

// LogValue implements slog.LogValuer.
func (a Auth) LogValue() slog.Value { return slog.StringValue("vault auth " + a.Method) }

// New checks the configuration and starts nothing; Run does.
func New(cfg Config) (*Session, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OnLogin == nil {
		cfg.OnLogin = func() {}
	}
	login, err := newMethod(cfg.Auth)
	if err = errors.Join(checkAddress(cfg), err); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	transport, err := newTransport(cfg.CACertFile)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	s := &Session{
		timeout: cfg.Timeout, log: cfg.Logger, onLogin: cfg.OnLogin, method: cfg.Auth.Method, transport: transport,
		nudge: make(chan struct{}, 1), attempt: make(chan struct{}),
	}
	guard := inTheClear{next: transport, allowed: cfg.Insecure}
	s.fresh = func() (*vaultapi.Client, error) { return newClient(cfg, guard) }
	if s.client, err = s.fresh(); err == nil {
		s.bare, err = s.fresh()
	}
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	s.login = func(ctx context.Context) (token, error) { return login.login(ctx, s) }
	s.changed = login.changed
	return s, nil
}

func checkAddress(cfg Config) error {
	u, err := url.Parse(cfg.Address)
	if err != nil || u.Host == "" {
		return fmt.Errorf("address %q: write it as https://host:8200", redactURL(cfg.Address))
	}
	switch {
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("address %q: nothing but scheme, host, port and path belongs in it", redactURL(cfg.Address))
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return fmt.Errorf("address %q: the scheme must be https", cfg.Address)
	case cfg.Insecure || isLoopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("address %q: http would send private keys over the network in the clear; use https", cfg.Address)
}

// redactURL leaves out what an address should not have held.
func redactURL(address string) string {
	if _, after, ok := strings.Cut(address, "@"); ok {
		return "…@" + after
	}
	return address
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// inTheClear refuses http:// to another host: checkAddress has seen the
// configured address only, and Vault's client follows a redirect with the token
// and the body.
type inTheClear struct {
	next    *http.Transport
	allowed bool
}

// RoundTrip implements http.RoundTripper.
func (c inTheClear) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.allowed || r.URL.Scheme == "https" || isLoopback(r.URL.Hostname()) {
		return c.next.RoundTrip(r)
	}
	if r.Body != nil {
		_ = r.Body.Close() // nothing was read of it
	}
	return nil, fmt.Errorf("vault redirects to %s://%s, which would send secrets over the network in the clear; give its api_addr (or the proxy in front of it) https", r.URL.Scheme, r.URL.Host)
}

// CloseIdleConnections is what http.Client looks for.
func (c inTheClear) CloseIdleConnections() { c.next.CloseIdleConnections() }

func newTransport(caFile string) (*http.Transport, error) {
	roots, err := loadRoots(caFile)
	if err != nil {
		return nil, err
	}
	// HTTP/1.1: a request that times out takes its connection with it. Of HTTP/2
	// a dead connection would stay and swallow the next ones.
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     90 * time.Second,
	}, nil
}

func loadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's, as crypto/tls has it
	}
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_cert_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(doc) {
		return nil, fmt.Errorf("ca_cert_file %s: no certificate in PEM in it", file)
	}
	return roots, nil
}

// newClient builds Vault's client from cfg alone. NewClient reads VAULT_TOKEN,
// VAULT_NAMESPACE and VAULT_HEADERS, and a request VAULT_WRAP_TTL, so each of
// them is set here.
func newClient(cfg Config, transport http.RoundTripper) (*vaultapi.Client, error) {
	client, err := vaultapi.NewClient(&vaultapi.Config{
		Address: cfg.Address,
		HttpClient: &http.Client{
			Transport: transport,
			// Vault's client follows one redirect itself, and checks it.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		// A try that is repeated behind our back turns a lost reply into a
		// refusal. Who may repeat does so, knowing what it repeats.
		MaxRetries: 0,
	})
	if err != nil {
		return nil, err
	}
	client.SetHeaders(http.Header{vaultapi.RequestHeaderName: {"true"}})
	client.SetWrappingLookupFunc(func(string, string) string { return "" })
	client.ClearToken()
	if cfg.Namespace != "" {
		client.SetNamespace(cfg.Namespace)
	}
	return client, nil
}
