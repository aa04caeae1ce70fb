package syntax

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Loopback reports whether a host is this machine and nobody else can be it.
func Loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// WebURL checks what all URLs have in common: absolute, https or Loopback
// http, without credentials or a fragment.
func WebURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("it must begin with https://")
	case u.Hostname() == "":
		return nil, errors.New("it names no host")
	case u.User != nil:
		return nil, errors.New("take the user and password out of it")
	case strings.Contains(raw, "#"):
		return nil, errors.New("take the fragment (#…) out of it")
	case u.Scheme == "http" && !Loopback(u.Hostname()):
		return nil, errors.New("plain http is for localhost only: write https://")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, fmt.Errorf("%q is no port", p)
		}
	}
	return u, nil
}

// ShownURL leaves out of a URL what may be a secret: user and password, query.
func ShownURL(raw string) string {
	if before, _, ok := strings.Cut(raw, "?"); ok {
		raw = before + "?…"
	}
	if at := strings.LastIndex(raw, "@"); at >= 0 {
		raw = "…" + raw[at:]
	}
	return raw
}

// IssuerURL checks an issuer's URL. It becomes `iss` byte for byte, and
// consumers compare bytes, so it has one spelling only (OIDC Discovery §3: no
// query, no fragment).
func IssuerURL(raw string) error {
	u, err := WebURL(raw)
	switch {
	case err != nil:
		return err
	case strings.Contains(raw, "?"):
		return errors.New("take the query (?…) out of it")
	case strings.HasSuffix(raw, "/"):
		return fmt.Errorf("take the slash at its end away: %s", strings.TrimRight(raw, "/"))
	case strings.ToLower(u.Host) != u.Host || !strings.HasPrefix(raw, u.Scheme+"://"):
		return errors.New("write scheme and host in lower case: consumers compare it byte by byte")
	case u.Path != "" && (path.Clean(u.Path) != u.Path || u.EscapedPath() != u.Path):
		return fmt.Errorf("its path %q must be plain: no dots, double slashes or escapes", u.EscapedPath())
	case u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80":
		return fmt.Errorf("take the port :%s away, it is the usual one", u.Port())
	}
	return nil
}

// ListenAddr checks host:port, with an empty host for every address.
func ListenAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%q: write host:port, or :port for every address", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port is a number up to 65535", addr)
	}
	if strings.ContainsAny(host, "/ ") {
		return fmt.Errorf("%q: %q is no host", addr, host)
	}
	return nil
}

// HTTPPath checks the path that an HTTP server serves something under.
func HTTPPath(p string) error {
	u, err := WebURL("https://host" + p)
	if err != nil || !strings.HasPrefix(p, "/") || path.Clean(p) != p || u.EscapedPath() != p || u.Path != p || u.RawQuery != "" || p == "/" {
		return fmt.Errorf("%q: write a plain path that begins with /, such as /.well-known/jwks.json", p)
	}
	return nil
}
