package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// Limits of one call to the daemon.
const (
	callTimeout = 30 * time.Second
	maxAnswer   = 32 << 20 // bytes
)

// client calls one of the daemon's sockets.
type client struct {
	path string
	// kind, flag and env say which socket is meant and how to name another, for
	// errors.
	kind, flag, env string
}

// get reads a JSON answer into out.
func (c client) get(ctx context.Context, path string, out any) error {
	body, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	return c.decode(body, out)
}

// post sends in as JSON and reads a JSON answer into out.
func (c client) post(ctx context.Context, path string, in, out any) error {
	doc, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	body, err := c.call(ctx, http.MethodPost, path, doc)
	if err != nil {
		return err
	}
	return c.decode(body, out)
}

// decode takes members that this build does not know: the daemon may be newer.
func (c client) decode(body []byte, out any) error {
	if err := strictjson.UnmarshalOpen(body, out); err != nil {
		return fmt.Errorf("the answer at %s is not what keyturn says: %w", c.path, err)
	}
	return nil
}

// call is one request. What is not 200 is an error, with the exit code that
// goes with it.
func (c client) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	// the host is not looked at: the socket says whom we talk to
	req, err := http.NewRequestWithContext(ctx, method, "http://keyturn"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.path)
		},
		DisableKeepAlives: true,
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, c.unreached(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, unreachablef("the daemon at %s stopped in the middle of its answer: %w", c.path, err)
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("the answer at %s is longer than %d bytes", c.path, maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return nil, c.refused(path, resp, answer)
	}
	return answer, nil
}

// isToken reports whether a text has the form of one: three parts of base64url
// (RFC 7515 §7.1), and so nothing that a terminal would obey.
func isToken(s string) bool {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	return strings.Count(s, ".") == 2 && !strings.ContainsFunc(s, odd)
}

func (c client) noToken() error {
	return fmt.Errorf("the answer at %s holds no token: is it keyturn's socket?", c.path)
}

// unreached says why nobody answered, and how to mend it.
func (c client) unreached(err error) error {
	another := fmt.Sprintf("--%s or %s names another", c.flag, c.env)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return unreachablef("there is no socket %s: is the daemon running? %s", c.path, another)
	case errors.Is(err, syscall.ECONNREFUSED) && !isSocket(c.path):
		return usagef("%s is no socket: %s", c.path, another)
	case errors.Is(err, syscall.ECONNREFUSED):
		return unreachablef("nobody listens at %s: the daemon has stopped; %s", c.path, another)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("permission denied at %s: %s", c.path, whoMay(c.path))
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENAMETOOLONG):
		return usagef("%s is no path of a socket: it may have 107 bytes", c.path)
	case errors.Is(err, context.DeadlineExceeded):
		return unreachablef("the daemon at %s did not answer within %s", c.path, callTimeout)
	}
	return unreachablef("the daemon at %s cannot be reached: %w", c.path, err)
}

// isSocket reports whether a path is a socket, as far as one may look.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode().Type() == fs.ModeSocket
}

// whoMay says which group a user must be in to connect.
func whoMay(path string) string {
	for _, p := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(p)
		if err != nil {
			continue
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			break
		}
		gid := strconv.FormatUint(uint64(stat.Gid), 10)
		name := gid
		if g, err := user.LookupGroupId(gid); err == nil {
			name = g.Name
		}
		if info.Mode().Perm()&0o060 == 0 {
			return fmt.Sprintf("%s is open to its owner (uid %d) alone (mode %04o); run as that user, or give the socket a group in listen", p, stat.Uid, info.Mode().Perm())
		}
		if stat.Gid == 0 {
			return fmt.Sprintf("%s belongs to group %s (mode %04o), which nobody else should join; give the socket a group of its own in listen", p, name, info.Mode().Perm())
		}
		return fmt.Sprintf("%s belongs to group %s (mode %04o); join it (usermod -aG %s USER) and log in again", p, name, info.Mode().Perm(), name)
	}
	return "a folder above it is closed to you"
}

// refused turns an answer that is not 200 into an error.
func (c client) refused(path string, resp *http.Response, body []byte) error {
	var p api.Problem
	if err := strictjson.UnmarshalOpen(body, &p); err != nil || p.Code == "" {
		return fmt.Errorf("%s answered %s, not as keyturn does: is it keyturn's socket?", c.path, plainText(resp.Status))
	}
	text := plainText(p.Error())
	if ofAnother(path, &p) {
		return usagef("%s: this command asks %s, which --%s or %s names", text, c.kind, c.flag, c.env)
	}
	text = commands.Replace(text)
	if !p.SafeAt.IsZero() && !strings.Contains(text, p.SafeAt.UTC().Format(time.RFC3339)) {
		text += fmt.Sprintf(" (safe at %s)", stamp(p.SafeAt))
	}
	if resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusTooManyRequests {
		if after := plainText(resp.Header.Get("Retry-After")); after != "" {
			seconds, _ := strconv.ParseUint(after, 10, 31) // none where it is no number
			p.RetryAfter = time.Duration(seconds) * time.Second
			text += fmt.Sprintf(" (retry in %ss)", after)
		}
		return &exitError{exitUnreachable, &refusedError{text, p}}
	}
	return &refusedError{text, p}
}

// commands says with commands what the daemon says with paths of its sockets.
var commands = strings.NewReplacer(
	"GET /v1/profiles", "keyturn profiles",
	"GET /v1/issuers", "keyturn keys",
	"add ?issuer= and one of", "name one of",
)

// ofAnother reports whether a socket answers so because it is one of the other
// kind. What has no name in its path is at every socket of its kind; what has
// one may be missing, which is told without a word about sockets.
func ofAnother(path string, p *api.Problem) bool {
	if p.Code != api.NotFound {
		return false
	}
	switch path {
	case "/v1/sign", "/v1/profiles", "/v1/issuers":
		return true
	}
	return strings.Contains(p.Detail, "socket ")
}

// refusedError is a problem that the daemon answered with, in words that may
// be printed.
type refusedError struct {
	text    string
	problem api.Problem
}

func (e *refusedError) Error() string { return e.text }
func (e *refusedError) Unwrap() error { return &e.problem }
