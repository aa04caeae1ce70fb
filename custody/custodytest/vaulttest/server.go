package vaulttest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/loopback"
)

// Server is a running Vault.
type Server struct {
	bin, dir, addr string
	id             string // in a cluster, its name there
	root, unseal   string
	transport      *http.Transport
	client         *vaultapi.Client
	ports          []*loopback.Port // that it may have again after a Kill

	mu    sync.Mutex
	cmd   *exec.Cmd
	done  chan struct{} // closed when cmd has ended
	names int           // for unique names
}

// Start runs a server of its own for a test and takes it down with it.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := Launch(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Launch runs a server that keeps its data in dir until Close: for TestMain,
// so that the tests of a package can share one.
func Launch(dir string) (*Server, error) {
	bin, err := Bin()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, transport: &http.Transport{DisableKeepAlives: true}}
	if err := s.boot(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Bin is the path of the Vault binary.
func Bin() (string, error) {
	if bin := os.Getenv("VAULT_BIN"); bin != "" {
		return bin, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		bin := filepath.Join(dir, "bin", "vault")
		if info, err := os.Stat(bin); err == nil && info.Mode().IsRegular() {
			return bin, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, name := range []string{"vault", "bao"} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	return "", errors.New("no Vault binary: run make vault, or let VAULT_BIN name one")
}

// URL is the server's address, http:// on loopback.
func (s *Server) URL() string { return "http://" + s.addr }

// RootToken may do everything.
func (s *Server) RootToken() string { return s.root }

// Client carries the root token.
func (s *Server) Client() *vaultapi.Client { return s.client }

func (s *Server) boot() error {
	if err := s.place(); err != nil {
		return err
	}
	if err := s.spawn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.initialize(ctx); err != nil {
		return err
	}
	return s.unsealed(ctx)
}

// place chooses addresses and writes the configuration of a node that knows
// nothing yet. The values of a stanza `storage` of a cluster come in extra.
func (s *Server) place(extra ...string) error {
	api, err := loopback.Reserve()
	if err != nil {
		return err
	}
	s.ports = append(s.ports, api)
	cluster, err := loopback.Reserve()
	if err != nil {
		return err
	}
	s.ports = append(s.ports, cluster)
	s.addr = api.Addr()
	config := fmt.Sprintf(`storage "raft" {
  path = %q
  node_id = %q
  performance_multiplier = 1
  %s
}
listener "tcp" {
  address = %q
  cluster_address = %q
  tls_disable = true
}
api_addr = %q
cluster_addr = "https://%s"
disable_mlock = true
`, filepath.Join(s.dir, "raft"), cmp.Or(s.id, "node"), strings.Join(extra, "\n  "), s.addr, cluster.Addr(), s.URL(), cluster.Addr())
	err = errors.Join(
		os.RemoveAll(filepath.Join(s.dir, "raft")), os.MkdirAll(filepath.Join(s.dir, "raft"), 0o700),
		os.WriteFile(filepath.Join(s.dir, "vault.hcl"), []byte(config), 0o600))
	if err != nil {
		return err
	}
	s.client, err = s.newClient("")
	return err
}

// initialize makes the unseal key and the root token, once in the life of a
// server or cluster.
func (s *Server) initialize(ctx context.Context) error {
	keys, err := s.client.Sys().InitWithContext(ctx, &vaultapi.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return fmt.Errorf("vault init: %w", err)
	}
	s.root, s.unseal = keys.RootToken, keys.KeysB64[0]
	s.client.SetToken(s.root)
	return nil
}

func (s *Server) newClient(token string) (*vaultapi.Client, error) {
	client, err := vaultapi.NewClient(&vaultapi.Config{Address: s.URL(), HttpClient: &http.Client{Transport: s.transport}, Timeout: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	client.ClearNamespace()
	client.SetToken(token)
	return client, nil
}

// spawn starts the process and waits until it listens.
func (s *Server) spawn() error {
	var log bytes.Buffer
	cmd := exec.Command(s.bin, "server", "-config", filepath.Join(s.dir, "vault.hcl"))
	cmd.Env = append(os.Environ(), "VAULT_ADDR=", "VAULT_TOKEN=", "SKIP_SETCAP=1")
	cmd.Stdout, cmd.Stderr = &log, &log
	// It must not outlive a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run Vault (VAULT_BIN, bin/vault or PATH): %w", err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended does not matter; that it has, does
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-done:
			return fmt.Errorf("%s does not run as a Vault server: %s", s.bin, log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not listen on %s: %w", s.bin, s.addr, err)
		}
	}
}

// unsealed unseals and waits until the node is active.
func (s *Server) unsealed(ctx context.Context) error {
	if _, err := s.client.Sys().UnsealWithContext(ctx, s.unseal); err != nil {
		return fmt.Errorf("vault unseal: %w", err)
	}
	return s.active(ctx)
}

// active waits until the node leads.
func (s *Server) active(ctx context.Context) error {
	for {
		health, err := s.client.Sys().HealthWithContext(ctx)
		if err == nil && health.Initialized && !health.Sealed && !health.Standby {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("vault does not become active: %w", errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// signal sends to the process and reports whether there is one.
func (s *Server) signal(sig os.Signal) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return false
	}
	return s.cmd.Process.Signal(sig) == nil
}

// Close ends the server for good. It may be called again.
func (s *Server) Close() {
	s.signal(syscall.SIGCONT)
	s.Kill()
	s.transport.CloseIdleConnections()
	for _, p := range s.ports {
		_ = p.Release() // it may have been before
	}
	s.ports = nil
}

// Kill ends the process at once, as kill -9 does, and waits for its end.
// Restart brings it back.
func (s *Server) Kill() {
	s.signal(syscall.SIGKILL)
	s.mu.Lock()
	done := s.done
	s.cmd, s.done = nil, nil
	s.mu.Unlock()
	if done != nil {
		<-done
	}
}

// Restart starts a killed server again, on the same address with the same
// data, and unseals it.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.spawn(); err != nil {
		t.Fatal(err)
	}
	if err := s.unsealed(ctx); err != nil {
		t.Fatal(err)
	}
}

// Pause stops the process with SIGSTOP: connections stay open and nothing
// answers. Resume lets it go on.
func (s *Server) Pause()  { s.signal(syscall.SIGSTOP) }
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

// Seal makes it refuse everything until Unseal.
func (s *Server) Seal(t testing.TB) {
	t.Helper()
	if err := s.client.Sys().SealWithContext(context.Background()); err != nil {
		t.Fatalf("seal: %v", err)
	}
}

// Unseal ends what Seal began and waits until it serves.
func (s *Server) Unseal(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.unsealed(ctx); err != nil {
		t.Fatal(err)
	}
}
