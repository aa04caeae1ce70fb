package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
)

// site is a daemon on embedded custody, and the folder that it lives in.
type site struct {
	dir, socket string
	cmd         *exec.Cmd
	out         bytes.Buffer // of the process; read after its end
	exited      chan error
}

// options are what differs between the daemons that are measured.
type options struct {
	binary  string
	algs    []string // a ring and a profile each, named like the algorithm in lower case
	audited bool
	rsaBits int
}

// config is a configuration as users write it: rotations once a year, so that
// none falls into a measurement, and a socket that another user may use.
func (o options) config(audit string) string {
	var rings, profiles strings.Builder
	for _, alg := range o.algs {
		name := strings.ToLower(alg)
		bits := ""
		if alg == "RS256" {
			bits = fmt.Sprintf(", rsa_bits: %d", o.rsaBits)
		}
		fmt.Fprintf(&rings, "  - {name: %s, issuer: main, algorithm: %s%s, rotate: \"0 3 1 1 *\", max_token_ttl: 1h}\n", name, alg, bits)
		fmt.Fprintf(&profiles, `  - name: %s
    ring: %s
    allow: [{socket: default}]
    subject: {pattern: "^user-[0-9]+$"}
    audiences: ["api://orders"]
    claims: {allow: [scope, tenant]}
    ttl: {default: 5m, max: 30m}
`, name, name)
	}
	return fmt.Sprintf(`store: local
state_dir: state
log: {level: info, format: json}
local: {dir: custody, key_file: seal.key}
listen:
  sign: [{name: default, path: sign.sock, mode: "0666"}]
  admin: {path: admin.sock}
  status: {addr: "off"}
issuers:
  - name: main
    revision: 1
    url: https://tokens.example.com
    publish: [{name: file, file: jwks.json}]
rings:
%sprofiles:
%saudit: %s
`, rings.String(), profiles.String(), audit)
}

// newSite starts a daemon and waits until every ring signs.
func newSite(ctx context.Context, o options) (*site, error) {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return nil, err
	}
	s := &site{dir: dir, socket: filepath.Join(dir, "sign.sock"), exited: make(chan error, 1)}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) start(ctx context.Context, o options) error {
	var seal [32]byte
	_, _ = rand.Read(seal[:]) // never fails
	audit := "{file: missing/audit.jsonl, required: false}"
	if o.audited {
		audit = "{file: audit.jsonl, required: true}"
	}
	config := filepath.Join(s.dir, "keyturn.yaml")
	err := errors.Join(
		os.Chmod(s.dir, 0o755), // the flooding user has to reach the socket
		os.WriteFile(filepath.Join(s.dir, "seal.key"), []byte(base64.StdEncoding.EncodeToString(seal[:])+"\n"), 0o600),
		os.WriteFile(config, []byte(o.config(audit)), 0o600))
	if err != nil {
		return err
	}
	s.cmd = exec.Command(o.binary, "run", "--config", config)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it must not outlive a bench that is killed
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { s.exited <- s.cmd.Wait() }()
	for _, alg := range o.algs {
		if err := s.signs(ctx, strings.ToLower(alg)); err != nil {
			return err
		}
	}
	return nil
}

// signs waits until a profile gives a token.
func (s *site) signs(ctx context.Context, profile string) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		_, last := s.token(profile)
		if last == nil {
			return nil
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			return fmt.Errorf("the daemon has ended: %w: %s", err, s.out.String())
		case <-ctx.Done():
			return fmt.Errorf("profile %q does not sign: %w", profile, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// token asks for one, with the load's request.
func (s *site) token(profile string) (string, error) {
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := conn.Write(signRequest(profile, 0)); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var out api.SignResponse
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("sign: %s", resp.Status)
	}
	return out.Token, nil
}

// close stops the daemon, wants a clean end, and takes its folder away.
func (s *site) close() error {
	var err error
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err = <-s.exited:
		case <-time.After(20 * time.Second):
			_ = s.cmd.Process.Kill()
			err = errors.Join(errors.New("the daemon did not stop within 20 s of SIGTERM"), <-s.exited)
		}
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
