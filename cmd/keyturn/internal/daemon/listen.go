package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/socket"
)

// drainTime bounds the end of an HTTP listener; the sign sockets have their
// own. The daemon as a whole has five seconds, and other parts end after it.
const drainTime = 4 * time.Second

// listen opens every socket, or none.
func (d *daemon) listen() (fronts []part, err error) {
	defer func() {
		if err != nil {
			d.closeListeners()
		}
	}()
	cfg := d.options.Config
	if d.signer != nil {
		for _, s := range cfg.Listen.Sign {
			gid, err := s.GID()
			if err != nil {
				return nil, fmt.Errorf("listen.sign %s: %w", s.Name, err)
			}
			ln, err := d.unix(s.Path, unixsock.Config{Mode: s.FileMode(), GID: gid})
			if err != nil {
				return nil, fmt.Errorf("listen.sign %s: %w", s.Name, err)
			}
			ln = d.opened(d.signListener(ln, s))
			fronts = append(fronts, part{"sign socket " + s.Name, func(ctx context.Context) error { return d.signer.Serve(ctx, ln, s.Name) }})
		}
	}
	gid, err := cfg.Listen.Admin.GID()
	if err != nil {
		return nil, fmt.Errorf("listen.admin: %w", err)
	}
	ln, err := d.unix(cfg.Listen.Admin.Path, unixsock.Config{Mode: cfg.Listen.Admin.FileMode(), GID: gid})
	if err != nil {
		return nil, fmt.Errorf("listen.admin: %w", err)
	}
	ln = d.opened(d.adminListener(ln))
	fronts = append(fronts, serve("admin socket", ln, socket.NewServer(d.admin.AdminHandler(), d.log)))
	if d.public != nil {
		fronts = append(fronts, serve("public listener", d.secured(d.public), webServer(d.publisher.Handler(), d.log)))
	}
	if cfg.Listen.Status.Addr != configs.StatusOff {
		ln, err := d.tcp(cfg.Listen.Status.Addr, "status", statusConns)
		if err != nil {
			return nil, fmt.Errorf("listen.status: %w", err)
		}
		fronts = append(fronts, serve("status listener", ln, webServer(d.admin.StatusHandler(), d.log)))
	}
	return fronts, nil
}

// unix listens on a socket, without a limit yet. The last directory of its path is made if it is
// missing: open to all to pass, so that the socket's own mode decides.
func (d *daemon) unix(path string, cfg unixsock.Config) (net.Listener, error) {
	dir := filepath.Dir(path)
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = open(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("directory of the socket: %w", err)
	}
	cfg.Path, cfg.Logger = path, d.log
	ln, err := unixsock.Listen(cfg)
	if err != nil {
		return nil, err
	}
	if err := d.sockets.add(path); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// open lets all pass a directory that was just made, whatever the umask: the
// unit's keeps all others out. Not by its path, which may have become a link.
func open(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o755), f.Close())
}

func (d *daemon) tcp(addr, name string, conns uint64) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	return d.opened(d.webListener(ln, name, conns)), nil
}

// opened is a listener that closeListeners closes.
func (d *daemon) opened(ln net.Listener) net.Listener {
	d.listeners = append(d.listeners, ln)
	return ln
}

func (d *daemon) closeListeners() {
	for _, ln := range d.listeners {
		_ = ln.Close() // most are closed by their servers already
	}
}

// webServer has the limits of a listener that strangers reach.
func webServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// serve answers a listener until its context ends, then drains it.
func serve(name string, ln net.Listener, srv *http.Server) part {
	srv.ConnState = idleness
	return part{name, func(ctx context.Context) error {
		failed := make(chan error, 1)
		go func() { failed <- srv.Serve(ln) }()
		select {
		case err := <-failed:
			return errors.Join(err, srv.Close())
		case <-ctx.Done():
		}
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		err := srv.Shutdown(end)
		if errors.Is(err, context.DeadlineExceeded) {
			err = srv.Close() // who holds a connection that long has asked for nothing
		}
		<-failed
		return err
	}}
}

// secured puts TLS in front of a listener where there is a certificate.
func (d *daemon) secured(ln net.Listener) net.Listener {
	if d.certificate.Load() == nil {
		return ln
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return d.certificate.Load(), nil
		},
	})
}

func loadCertificate(files configs.TLS) (*tls.Certificate, error) {
	if files.CertFile == "" {
		return nil, nil // plain HTTP, which the file has asked for by name
	}
	cert, err := readFile(files.CertFile)
	if err != nil {
		return nil, fmt.Errorf("listen.public.tls: %w", err)
	}
	key, err := readFile(files.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("listen.public.tls: %w", err)
	}
	c, err := tls.X509KeyPair(cert, key)
	clear(key)
	if err != nil {
		return nil, fmt.Errorf("listen.public.tls: %s with %s: %w", files.CertFile, files.KeyFile, err)
	}
	return &c, nil
}

// readFile reads a file of some size, and nothing that could be waited for.
func readFile(path string) ([]byte, error) {
	const most = 1 << 20
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case info.Size() > most:
		return nil, fmt.Errorf("%s is larger than %d bytes, as nothing is that belongs there", path, most)
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// dialSelf connects to the own public listener, as a consumer on this host would.
func dialSelf(ln net.Listener) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		addr := ln.Addr().String()
		if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().IsUnspecified() {
			loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
			if ap.Addr().Is6() && !ap.Addr().Is4In6() {
				loopback = netip.IPv6Loopback()
			}
			addr = netip.AddrPortFrom(loopback, ap.Port()).String()
		}
		return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
	}
}

func (d *daemon) leaf() *x509.Certificate {
	c := d.certificate.Load()
	if c == nil {
		return nil
	}
	return c.Leaf
}
