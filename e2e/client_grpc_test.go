package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/keyturn/keyturn/client"
)

// What package client says without importing grpc.
var _ credentials.PerRPCCredentials = client.GRPC{}

// loopbackCertificate is for 127.0.0.1, and is its own authority.
func loopbackCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestClientOverGRPC: a call over TLS brings a token that the service verifies;
// without TLS nothing is sent.
func TestClientOverGRPC(t *testing.T) {
	t.Parallel()
	d := newSite(t).edit("@every 10s", "@every 1h").start("web")
	creds := client.GRPC{Source: d.connect().Source(ask("web"))}
	cert, pool := loopbackCertificate(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)), grpc.UnaryInterceptor(
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			raw, _ := strings.CutPrefix(strings.Join(md.Get("authorization"), ","), "Bearer ")
			if strings.Count(raw, ".") != 2 {
				return nil, status.Error(codes.Unauthenticated, "no token")
			}
			if err := verifyWith(d.jwksURL(), raw, "demo"); err != nil {
				return nil, status.Error(codes.Unauthenticated, err.Error())
			}
			return next(ctx, req)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	defer func() { srv.Stop(); <-done }()

	call := func(opts ...grpc.DialOption) error {
		conn, err := grpc.NewClient(ln.Addr().String(), opts...)
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
		return err
	}
	secure := grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, ""))
	if err := call(secure, grpc.WithPerRPCCredentials(creds)); err != nil {
		t.Errorf("with a token: %v", err)
	}
	if err := call(secure); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without: %v", err)
	}
	if err := call(grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(creds)); err == nil || !strings.Contains(err.Error(), "transport") {
		t.Errorf("without TLS: %v", err)
	}
}

// TestClientOverHTTP: what an app does, on a real daemon, a service that
// verifies with go-oidc, and a rotation in between.
func TestClientOverHTTP(t *testing.T) {
	t.Parallel()
	d := newSite(t).start("web") // which turns over every ten seconds
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if strings.Count(raw, ".") != 2 {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		if err := verifyWith(d.jwksURL(), raw, "demo"); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, kidOf(t, raw))
	}))
	defer service.Close()
	hc := &http.Client{Transport: &client.Transport{Source: d.connect().Source(ask("web"))}, Timeout: 20 * time.Second}
	kids := map[string]bool{}
	for began := time.Now(); len(kids) < 2 && time.Since(began) < time.Minute; time.Sleep(100 * time.Millisecond) {
		resp, err := hc.Get(service.URL)
		must(t, err)
		kid := make([]byte, 100)
		n, _ := resp.Body.Read(kid)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s", resp.Status, kid[:n])
		}
		kids[string(kid[:n])] = true
	}
	if len(kids) < 2 {
		t.Error("no rotation within a minute")
	}
}
