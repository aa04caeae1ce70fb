package vaultsession

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// method is one way to get a token.
type method interface {
	login(ctx context.Context, s *Session) (token, error)
	// changed reports whether another login would present other credentials
	// than the last one did, so that waiting longer makes no sense.
	changed() bool
}

// token is what a login gave.
type token struct {
	value string
	// ours: we logged in for it, so we revoke it.
	ours      bool
	renewable bool
	// life is what was granted at the login, 0 without end.
	life    time.Duration
	expires time.Time // zero without end
}

func newMethod(a Auth) (method, error) {
	need := func(name, value string) error {
		if value == "" {
			return fmt.Errorf("auth method %s: %s is missing", a.Method, name)
		}
		return nil
	}
	switch a.Method {
	case MethodToken:
		given := ""
		if a.Token != nil {
			given = a.Token()
		}
		if err := need("the token", given); err != nil {
			return nil, err
		}
		value, err := cleanSecret([]byte(given))
		if err != nil {
			return nil, fmt.Errorf("auth method token: the token: %w", err)
		}
		return givenToken(value), nil
	case MethodTokenFile:
		return &tokenFile{path: a.TokenFile}, need("token_file", a.TokenFile)
	case MethodAppRole:
		mount := strings.Trim(a.Mount, "/")
		if mount == "" {
			mount = MethodAppRole
		}
		return &appRole{path: path.Join("auth", mount, "login"), roleFile: a.RoleIDFile, secretFile: a.SecretIDFile},
			errors.Join(need("role_id_file", a.RoleIDFile), need("secret_id_file", a.SecretIDFile))
	case "kubernetes", "jwt", "cert":
		return nil, fmt.Errorf("auth method %s is not built yet; use approle, token_file or token", a.Method)
	case "":
		return nil, errors.New("auth method is missing; use approle, token_file or token")
	}
	return nil, fmt.Errorf("auth method %q is unknown; use approle, token_file or token", a.Method)
}

// readTime is how long a pipe may take to give a secret.
const readTime = 5 * time.Second

// readSecret reads one line; its error never shows what the file holds.
func readSecret(name string) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would keep it waiting for a writer
	if err != nil {
		return "", err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(readTime)) // files that are no pipe have none
	doc, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	value, err := cleanSecret(doc)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

func cleanSecret(doc []byte) (string, error) {
	value := string(bytes.TrimSpace(doc))
	if value == "" {
		return "", errors.New("it is empty")
	}
	for _, c := range []byte(value) {
		if c <= ' ' || c >= 0x7f {
			return "", errors.New("it must hold one line of printable characters without spaces")
		}
	}
	return value, nil
}

// givenToken is a token that the user gave as it is.
type givenToken string

func (g givenToken) login(ctx context.Context, s *Session) (token, error) {
	return s.lookup(ctx, string(g))
}
func (givenToken) changed() bool { return false }

// tokenFile is a token that something else writes to a file.
type tokenFile struct {
	path string
	last [sha256.Size]byte
}

func (f *tokenFile) login(ctx context.Context, s *Session) (token, error) {
	value, err := readSecret(f.path)
	f.last = sha256.Sum256([]byte(value))
	if err != nil {
		return token{}, fmt.Errorf("token_file: %w", err)
	}
	return s.lookup(ctx, value)
}

func (f *tokenFile) changed() bool {
	value, err := readSecret(f.path)
	return err == nil && sha256.Sum256([]byte(value)) != f.last
}

// lookup finds out what a token that we did not log in for can still do.
func (s *Session) lookup(ctx context.Context, value string) (token, error) {
	client, err := s.fresh()
	if err != nil {
		return token{}, err
	}
	client.SetToken(value)
	start := time.Now()
	reply, err := s.send(ctx, client, Request{Method: "GET", Path: "auth/token/lookup-self"})
	var refusal *Error
	if errors.As(err, &refusal) && refusal.Status == 403 && !isInvalidToken(err) {
		// A good token whose policies do not let it look at itself: use it as
		// long as it lasts.
		s.log.Warn("vault token may not look itself up; its expiry is unknown and it is not renewed",
			"mend", "grant auth/token/lookup-self read and auth/token/renew-self update")
		return token{value: value}, nil
	}
	if isInvalidToken(err) {
		return token{}, fmt.Errorf("the token has ended, was revoked, or is not one of this Vault: %w", err)
	}
	if err != nil {
		return token{}, err
	}
	var body struct {
		Data struct {
			TTL       int64  `json:"ttl"`
			Renewable bool   `json:"renewable"`
			Expires   string `json:"expire_time"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return token{}, fmt.Errorf("%w: token lookup: the answer is not Vault's", keyring.ErrUnavailable)
	}
	if body.Data.Expires != "" { // 0 of one that ends is less than a second
		body.Data.TTL = max(body.Data.TTL, 1)
	}
	return newToken(value, body.Data.TTL, body.Data.Renewable, start), nil
}

func newToken(value string, seconds int64, renewable bool, start time.Time) token {
	t := token{value: value, renewable: renewable, life: time.Duration(seconds) * time.Second}
	if t.life > 0 {
		t.expires = start.Add(t.life)
	}
	return t
}

// appRole logs in with a role id and a secret id.
type appRole struct {
	path                 string
	roleFile, secretFile string
	last                 [sha256.Size]byte
}

func (a *appRole) read() (role, secret string, err error) {
	role, errRole := readSecret(a.roleFile)
	secret, errSecret := readSecret(a.secretFile)
	if errRole != nil {
		errRole = fmt.Errorf("role_id_file: %w", errRole)
	}
	if errSecret != nil {
		errSecret = fmt.Errorf("secret_id_file: %w", errSecret)
	}
	return role, secret, errors.Join(errRole, errSecret)
}

func (a *appRole) login(ctx context.Context, s *Session) (token, error) {
	role, secret, err := a.read()
	a.last = sha256.Sum256([]byte(role + "\x00" + secret))
	if err != nil {
		return token{}, err
	}
	start := time.Now()
	// Without a token: an old one has no business here.
	reply, err := s.send(ctx, s.bare, Request{Method: "PUT", Path: a.path, Body: map[string]string{"role_id": role, "secret_id": secret}})
	if err != nil {
		var refusal *Error
		if errors.As(err, &refusal) && refusal.Status == 400 {
			err = fmt.Errorf("%w (are role_id_file and secret_id_file of this role, and is the secret id still good?): %w", keyring.ErrDenied, err)
		}
		return token{}, err
	}
	t, err := grantedToken(reply, start)
	t.ours = true
	return t, err
}

func (a *appRole) changed() bool {
	role, secret, err := a.read()
	return err == nil && sha256.Sum256([]byte(role+"\x00"+secret)) != a.last
}

// grantedToken reads the answer of a login or a renewal.
func grantedToken(reply *Reply, start time.Time) (token, error) {
	var body struct {
		Auth struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int64  `json:"lease_duration"`
			Renewable     bool   `json:"renewable"`
		} `json:"auth"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil || body.Auth.ClientToken == "" {
		return token{}, fmt.Errorf("%w: the answer holds no token; is this address Vault's?", keyring.ErrUnavailable)
	}
	return newToken(body.Auth.ClientToken, body.Auth.LeaseDuration, body.Auth.Renewable, start), nil
}
