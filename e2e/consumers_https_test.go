package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority is a certificate authority of a test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, file string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key = a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyturn e2e"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	})
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o644))
	return a
}

func (a *authority) issue(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(a.t, err)
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	return cert, key
}

// serve writes a certificate for loopback, with its key.
func (a *authority) serve(serial int64, certFile, keyFile string) {
	a.t.Helper()
	cert, key := a.issue(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	must(a.t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644))
}

// TestHTTPSEndpoint: consumers that trust the authority verify over HTTPS, who
// does not trust it gets nothing, and a renewed certificate is served after
// SIGHUP.
func TestHTTPSEndpoint(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("insecure: true", "tls: {cert_file: tls.pem, key_file: tls.key}").edit("url: http://", "url: https://")
	ca := newAuthority(t, s.path("ca.pem"))
	ca.serve(2, s.path("tls.pem"), s.path("tls.key"))
	d := s.start("web")
	issuer := "https://" + d.public
	set := keySet{url: issuer + "/.well-known/jwks.json", issuer: issuer, audience: "demo", caFile: s.path("ca.pem")}
	for _, c := range consumers() {
		token := d.mustToken("web").Token
		if lines, err := c.judge(set, []string{token}); err != nil || !strings.HasPrefix(lines[0], "ok ") {
			t.Errorf("%s over HTTPS: %v %v", c.name, lines, err)
		}
		stranger := set
		stranger.caFile = ""
		if lines, err := c.judge(stranger, []string{token}); err == nil && strings.HasPrefix(lines[0], "ok ") {
			t.Errorf("%s took a certificate of an authority that it does not know", c.name)
		}
	}
	if n := serial(t, s); n != 2 {
		t.Errorf("the listener shows certificate %d, want 2", n)
	}
	ca.serve(3, s.path("tls.pem"), s.path("tls.key"))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	within(t, 5*time.Second, "the renewed certificate", func() error {
		if n := serial(t, s); n != 3 {
			return fmt.Errorf("the listener shows certificate %d", n)
		}
		return nil
	})
	within(t, 5*time.Second, "all well with the renewed certificate", func() error {
		if code, h, err := d.health("/readyz"); err != nil || code != http.StatusOK || h.Status != "ok" {
			return fmt.Errorf("%d %+v %v", code, h, err)
		}
		return nil
	})
}

// serial is the number of the certificate that the site's endpoint shows.
func serial(t *testing.T, s *site) int64 {
	t.Helper()
	client, err := trusting(s.path("ca.pem"))
	must(t, err)
	defer client.CloseIdleConnections()
	resp, err := client.Get("https://" + s.public + "/.well-known/jwks.json")
	must(t, err)
	defer resp.Body.Close()
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
}
