package vaultkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/keyring"
)

const (
	// insistFor bounds how long what has no definite answer is repeated: longer
	// than Raft takes to elect a leader after a kill -9 (10 s).
	insistFor = 15 * time.Second
	// settleFor bounds a read that finds out what became of a write after the
	// caller's own time is up.
	settleFor = 3 * time.Second
)

// Config says which mount to use.
type Config struct {
	// Session must be running before a call can succeed.
	Session *vaultsession.Session
	// Mount is the path of a KV v2 mount, "keyturn" say.
	Mount  string
	Logger *slog.Logger
	// Generate is half.Random unless a test says otherwise.
	Generate half.Generator
}

// Custody keeps manifests and private halves in Vault. It is safe for
// concurrent use, by any number of processes.
type Custody struct {
	session  *vaultsession.Session
	mount    string
	log      *slog.Logger
	generate half.Generator
}

// New starts nothing and asks nothing; Check does.
func New(cfg Config) *Custody {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Custody{session: cfg.Session, mount: strings.Trim(cfg.Mount, "/"), log: cfg.Logger, generate: cfg.Generate}
}

func (c *Custody) path(kind, issuer string, rest ...string) string {
	return strings.Join(append([]string{c.mount, kind, "issuers", issuer}, rest...), "/")
}

// entry is one KV v2 secret, as far as it matters here.
type entry struct {
	// fields is nil where there is none, or it was deleted or destroyed.
	fields map[string]json.RawMessage
	// version is 0 where nothing was ever there, or all was taken away.
	version int
}

// text is a field that must be a string.
func (e entry) text(field string) (string, error) {
	raw, ok := e.fields[field]
	if !ok {
		return "", fmt.Errorf("field %s is missing", field)
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("field %s is not a string", field)
	}
	return s, nil
}

// read returns the newest version. That nothing is there is no error.
func (c *Custody) read(ctx context.Context, path string) (entry, error) {
	reply, err := c.session.Do(ctx, vaultsession.Request{Method: "GET", Path: path})
	if err != nil {
		return entry{}, err
	}
	// Of a version that was deleted or destroyed Vault answers 404 with a body.
	var body struct {
		Data struct {
			Data     map[string]json.RawMessage `json:"data"`
			Metadata struct {
				Version int `json:"version"`
			} `json:"metadata"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return entry{}, fmt.Errorf("read %s: %w: the answer is not Vault's", path, keyring.ErrUnavailable)
	}
	e := entry{fields: body.Data.Data, version: body.Data.Metadata.Version}
	if e.version == 0 && !reply.Missing() {
		return entry{}, fmt.Errorf("read %s: %w: the answer is not of KV version 2", path, keyring.ErrUnavailable)
	}
	return e, nil
}

// errRefused is the answer to a check-and-set on a version that is not there.
var errRefused = errors.New("another version is stored")

// put writes fields where version is the newest, and insists until it has a
// definite answer or runs out of time. doubt reports that a try which failed
// may have been applied: then a refusal may be the echo of our own success.
func (c *Custody) put(ctx context.Context, path string, fields map[string]string, version int) (written int, doubt bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, insistFor)
	defer cancel()
	request := vaultsession.Request{Method: "PUT", Path: path, Body: map[string]any{
		"options": map[string]int{"cas": version}, "data": fields,
	}}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		written, err = c.putOnce(ctx, request)
		if err == nil || !uncertain(err) {
			return written, doubt, err
		}
		doubt = true
		c.log.Warn("write to vault without a definite answer; it is repeated", "path", path, "cas", version, "error", err)
		select {
		case <-ctx.Done():
			return 0, true, err
		case <-time.After(wait):
		}
	}
}

// errNoVersion: a standby that cannot forward makes an empty answer of it.
var errNoVersion = fmt.Errorf("%w: the answer to a write names no version", keyring.ErrUnavailable)

func uncertain(err error) bool { return errors.Is(err, errNoVersion) || vaultsession.Uncertain(err) }

func (c *Custody) putOnce(ctx context.Context, request vaultsession.Request) (int, error) {
	reply, err := c.session.Do(ctx, request)
	var refusal *vaultsession.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusBadRequest && refusal.Says("check-and-set parameter did not match") {
		return 0, errRefused
	}
	if err != nil {
		return 0, err
	}
	var body struct {
		Data struct {
			Version int `json:"version"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil || body.Data.Version < 1 {
		return 0, errNoVersion
	}
	return body.Data.Version, nil
}

// settle is a context to find out with what became of a write, also when the
// caller's has ended.
func settle(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settleFor)
}
