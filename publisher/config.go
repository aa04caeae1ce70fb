package publisher

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// DefaultInterval is how often each target is looked at when nothing is due.
const DefaultInterval = 10 * time.Second

// Config is what New takes.
type Config struct {
	Issuers []Issuer
	// Interval is how often each target is looked at when nothing is due: how
	// long a hand-edited file stands, and how soon a confirm URL that catches
	// up is seen. The daemon's sync_interval. [10s]
	Interval time.Duration
	// Self is how the process reaches its own public listener. Required where
	// there are http targets.
	Self Self
	// Roots are the certificate authorities that confirm URLs are checked
	// against. [those of the system]
	Roots *x509.CertPool
	// Read tells the newest snapshot that the store was seen to hold, and when
	// the store was last read. It is what tells a file that another replica
	// wrote from one that was forged to look newer than all. It must not block.
	// [nothing, and what is ahead stays as it is]
	Read func(issuer string) (*keyring.Snapshot, time.Time)
	// Wake is called when a target was read back with other keys than before.
	// It must not block. [nothing]
	Wake func()
	// Observe is called for every publication and confirmation: true where a
	// target was brought up to date and read back, false for a try that
	// failed. It must not block. [nothing]
	Observe func(issuer, target string, ok bool)
	// Drifted is called when a published file was found changed by somebody
	// else. It must not block. [nothing]
	Drifted func(issuer, target string)
	// Clock reads this host's clocks. It must not block. [time.Now for both]
	Clock func(issuer string) Clock
	// Logger gets what changes; it is required.
	Logger *slog.Logger
}

// Clock is one reading of a host's two clocks: keys leave a set by age at
// Early, what is served ends at Late, and files are taken away at Away.
type Clock struct {
	// Early and Late are the lesser and the greater of the wall clock and of what
	// the boot clock makes of its last reading that was sound.
	Early, Late time.Time
	// Away is Late, but while the wall clock is in doubt what the boot clock alone
	// makes of its last reading that was sound: no file goes by a clock that was
	// set ahead, and none stays by one that was set back.
	Away time.Time
}

// clock reads the clocks for an issuer.
func (c *Config) clock(issuer string) Clock {
	if c.Clock == nil {
		now := time.Now()
		return Clock{Early: now, Late: now, Away: now}
	}
	return c.Clock(issuer)
}

// Issuer is one issuer and the targets of this replica.
type Issuer struct {
	Name string
	// URL is the issuer's URL: its path is where http targets are served.
	URL     string
	Targets []Target
}

// Target is one place where this replica publishes the set or reads it back.
type Target struct {
	// Name is unique in the issuer and the one that the manifest has.
	Name string
	Kind keyring.TargetKind
	// File is the path of a file target.
	File string
	// HTTPPath is where an http target is served. [the path of the issuer's
	// URL, and /.well-known/jwks.json]
	HTTPPath string
	// ConfirmURL is fetched as a consumer would; https, or http on loopback.
	ConfirmURL string
	// View and Required count where the manifest does not name the target.
	View     keyring.View
	Required bool
}

// Self is how a process reaches its own public listener, to read http targets
// back through everything that a request passes.
type Self struct {
	// Dial connects to the listener.
	Dial func(ctx context.Context) (net.Conn, error)
	// Leaf is the certificate that the listener should present; nil for plain
	// HTTP. It is pinned: which authorities the consumers trust, and by which
	// name they come, is not known here. One that has expired is no answer.
	Leaf func() *x509.Certificate
}

// check reports everything that is wrong with a configuration at once.
func (c *Config) check() error {
	var errs []error
	if c.Logger == nil {
		errs = append(errs, errors.New("no logger"))
	}
	if c.Interval < 0 {
		errs = append(errs, fmt.Errorf("interval %s is negative", c.Interval))
	}
	taken := map[string]string{} // what only one target may have: who has it
	claim := func(what, who string) {
		if other, ok := taken[what]; ok {
			errs = append(errs, fmt.Errorf("%s: %s belongs to %s already", who, what, other))
			return
		}
		taken[what] = who
	}
	for _, is := range c.Issuers {
		claim("the name of issuer "+is.Name, "issuer "+is.Name)
		if _, err := checkURL(is.URL); err != nil {
			errs = append(errs, fmt.Errorf("issuer %s: %w", is.Name, err))
			continue
		}
		if slices.ContainsFunc(is.Targets, func(t Target) bool { return t.Kind == keyring.TargetHTTP }) {
			claim("the path "+is.wellKnown("openid-configuration"), "issuer "+is.Name)
		}
		for _, t := range is.Targets {
			who := fmt.Sprintf("target %s of issuer %s", t.Name, is.Name)
			claim(fmt.Sprintf("the name %s/%s", is.Name, t.Name), who)
			if err := c.checkTarget(is, t, func(what string) { claim(what, who) }); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", who, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Config) checkTarget(is Issuer, t Target, claim func(string)) error {
	if err := t.View.Check(); err != nil {
		return err
	}
	switch t.Kind {
	case keyring.TargetFile:
		file, err := filepath.Abs(t.File)
		if err != nil || t.File == "" {
			return fmt.Errorf("file %q is not a path", t.File)
		}
		claim("the file " + file)
		claim("the file " + file + sideSuffix)
		claim("the file " + file + lockSuffix)
	case keyring.TargetHTTP:
		p := t.path(is)
		if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsAny(p, "?#") {
			return fmt.Errorf("path %q is not absolute and clean", p)
		}
		if c.Self.Dial == nil {
			return errors.New("an http target needs a listener to be read back through")
		}
		claim("the path " + p)
	case keyring.TargetConfirm:
		u, err := checkURL(t.ConfirmURL)
		if err != nil {
			return err
		}
		if u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return fmt.Errorf("%s: use https; plain http shows what anybody on the way wants shown", t.ConfirmURL)
		}
	default:
		return fmt.Errorf("kind %q is not built: use file, http or confirm", t.Kind)
	}
	return nil
}

// path is where an http target is served.
func (t Target) path(is Issuer) string {
	if t.HTTPPath != "" {
		return t.HTTPPath
	}
	return is.wellKnown("jwks.json")
}

// wellKnown is a path under the issuer's; a slash at its end is dropped first
// (OIDC Discovery §4).
func (is Issuer) wellKnown(name string) string {
	u, err := url.Parse(is.URL)
	if err != nil { // check lets no such URL through
		return "/.well-known/" + name
	}
	return strings.TrimSuffix(u.Path, "/") + "/.well-known/" + name
}

func checkURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("URL: %w", err)
	}
	if (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("URL %q: use https://host/path, without credentials and fragment", u.Redacted())
	}
	return u, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.IsLoopback())
}
