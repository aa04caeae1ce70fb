package daemon

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/admin"
	"github.com/keyturn/keyturn/configs"
)

// certificateFiles makes a certificate and its key.
func certificateFiles(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	must(t, err)
	half, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	must(t, errors.Join(
		os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: half}), 0o600)))
	return cert, key
}

// reloadable is as much of a daemon as a reload needs.
func reloadable(t *testing.T, public configs.PublicListener) *daemon {
	t.Helper()
	cfg := &configs.Config{}
	cfg.Listen.Public = public
	certificate, err := loadCertificate(public.TLS)
	must(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	d := &daemon{
		log: slog.New(slog.DiscardHandler), metrics: admin.NewMetrics(admin.MetricsConfig{}), public: ln,
		options: Options{Config: cfg, Level: new(slog.LevelVar)},
	}
	d.startReloading()
	d.certificate.Store(certificate)
	return d
}

func mustReload(t *testing.T, d *daemon) *configs.Config {
	t.Helper()
	next, err := d.options.Reload()
	must(t, err)
	return next
}

// TestReloadKeepsTLS: a reload changes the certificate, and refuses as a whole
// what would begin or end TLS on an open listener.
func TestReloadKeepsTLS(t *testing.T) {
	cert, key := certificateFiles(t)
	plain, secure := configs.PublicListener{Addr: ":1", Insecure: true}, configs.PublicListener{Addr: ":1", TLS: configs.TLS{CertFile: cert, KeyFile: key}}
	for name, tc := range map[string]struct {
		from, to configs.PublicListener
		refused  bool
	}{
		"a certificate again": {secure, secure, false},
		"plain again":         {plain, plain, false},
		"TLS to plain":        {secure, plain, true},
		"TLS to nothing":      {secure, configs.PublicListener{}, true},
		"plain to TLS":        {plain, secure, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := reloadable(t, tc.from)
			before := d.certificate.Load()
			d.options.Reload = func() (*configs.Config, error) {
				next := &configs.Config{Log: configs.Log{Level: "debug"}}
				next.Listen.Public = tc.to
				return next, nil
			}
			d.reload(true)
			after := d.certificate.Load()
			if (before == nil) != (after == nil) {
				t.Errorf("the certificate was %v and is %v", before != nil, after != nil)
			}
			if changed := d.options.Level.Level() == slog.LevelDebug; changed == tc.refused {
				t.Errorf("the rest of the file was applied: %v", changed)
			}
			if !tc.refused && before != nil && before == after {
				t.Error("the certificate was not read again")
			}
			_, err := d.apply(mustReload(t, d))
			if tc.refused != (err != nil && strings.Contains(err.Error(), "restart keyturn")) {
				t.Errorf("apply = %v", err)
			}
		})
	}
}

// TestReloadWithoutAListener: a listener that the file adds waits for the
// restart, and its certificate with it.
func TestReloadWithoutAListener(t *testing.T) {
	cert, key := certificateFiles(t)
	d := reloadable(t, configs.PublicListener{})
	d.public = nil
	next := &configs.Config{}
	next.Listen.Public = configs.PublicListener{Addr: ":1", TLS: configs.TLS{CertFile: cert, KeyFile: key}}
	_, err := d.apply(next)
	must(t, err)
	if d.certificate.Load() != nil {
		t.Error("a certificate for no listener")
	}
}
