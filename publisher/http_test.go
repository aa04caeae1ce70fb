package publisher_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
)

var update = flag.Bool("update", false, "write the golden files anew")

func httpTarget(name, path string, view keyring.View) publisher.Target {
	return publisher.Target{Name: name, Kind: keyring.TargetHTTP, HTTPPath: path, View: view, Required: true}
}

// served is a publisher whose handler stands behind a real listener.
type served struct {
	*harness
	url string
}

// startServed runs a publisher and serves its handler, over TLS if there is a
// certificate.
func startServed(t *testing.T, cfg publisher.Config, cert *tls.Certificate, targets ...publisher.Target) *served {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	addr := srv.Listener.Addr()
	cfg.Interval = 20 * time.Millisecond
	if cfg.Self.Dial == nil {
		cfg.Self.Dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		}
	}
	h := start(t, cfg, targets...)
	srv.Config.Handler = h.Handler()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if cert != nil {
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{*cert}}
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	t.Cleanup(h.stop) // before the server, so that no read-back hangs
	return &served{h, srv.URL}
}

func (s *served) get(t *testing.T, method, path string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// The keys of RFC 7517 A.1 and RFC 8037 A.2.
func rfcKeys() (ec, ed keyring.JWK) {
	ec = keyring.JWK{Kty: "EC", Use: "sig", Alg: keyring.ES256, Crv: "P-256",
		X: "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", Y: "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}
	ed = keyring.JWK{Kty: "OKP", Use: "sig", Alg: keyring.EdDSA, Crv: "Ed25519", X: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
	ec.Kid, ed.Kid = ec.Thumbprint(), ed.Thumbprint()
	return ec, ed
}

// Every answer of the endpoint, byte for byte.
func TestEndpointGolden(t *testing.T) {
	ec, ed := rfcKeys()
	h := startServed(t, publisher.Config{}, nil,
		httpTarget("kubernetes", "/k8s/jwks.json", keyring.ViewKubernetes), httpTarget("endpoint", "", keyring.ViewAll))
	var got bytes.Buffer
	ask := func(method, path string, header ...string) *http.Response {
		resp, body := h.get(t, method, path, header...)
		resp.Header.Del("Date")
		resp.Header.Del("Connection")
		fmt.Fprintf(&got, "> %s %s %s\n< %d\n", method, path, strings.Join(header, ": "), resp.StatusCode)
		must(t, resp.Header.Write(&got))
		fmt.Fprintf(&got, "\r\n%s\n", body)
		return resp
	}
	const jwks = "/main/.well-known/jwks.json"
	ask("GET", jwks)
	h.Accept("main", snapshot(time.Now(), 7, ec, ed))
	eventually(t, "both were read back", func() bool { return len(h.Confirmed("main")) == 2 })
	h.wantConfirmed(t, "endpoint", ec, ed)
	h.wantConfirmed(t, "kubernetes", ec, ed)
	h.wantCodes(t)

	resp := ask("GET", jwks)
	if resp.ContentLength <= 0 {
		t.Errorf("no Content-Length")
	}
	ask("HEAD", jwks)
	ask("GET", jwks, "If-None-Match", resp.Header.Get("ETag"))
	ask("HEAD", jwks, "If-None-Match", `"other", W/`+resp.Header.Get("ETag"))
	ask("GET", jwks, "If-None-Match", `"other"`)
	ask("GET", "/main/.well-known/openid-configuration")
	ask("GET", "/k8s/jwks.json")
	ask("POST", jwks)
	ask("OPTIONS", jwks)
	ask("GET", "/.well-known/jwks.json")
	ask("GET", "/main/.well-known/")

	path := filepath.Join("testdata", "endpoint.golden")
	if *update {
		must(t, os.WriteFile(path, got.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("answers differ from %s (-want +got):\n%s", path, diff)
	}
}

// Several issuers on one listener, and a set at a path of its own that the
// discovery document points to.
func TestSeveralIssuers(t *testing.T) {
	h := startServed(t, publisher.Config{Issuers: []publisher.Issuer{
		{Name: "main", URL: "https://tokens.example.com/main/", Targets: []publisher.Target{httpTarget("a", "", ""), httpTarget("c", "/main/c", "")}},
		{Name: "root", URL: "https://tokens.example.com", Targets: []publisher.Target{httpTarget("b", "/keys", "")}},
	}}, nil)
	a, b := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
	h.Accept("main", snapshot(time.Now(), 1, a))
	s := snapshot(time.Now(), 1, b)
	s.Config.Name, s.Config.URL, s.Lineage = "root", "https://tokens.example.com", "lineage-two"
	h.Accept("root", s)
	eventually(t, "all were read back", func() bool { return len(h.Confirmed("main"))+len(h.Confirmed("root")) == 3 })
	for path, want := range map[string]string{
		"/main/.well-known/jwks.json":            a.Kid,
		"/main/c":                                a.Kid,
		"/main/.well-known/openid-configuration": `"jwks_uri":"https://tokens.example.com/main/.well-known/jwks.json"`,
		"/keys":                                  b.Kid,
		"/.well-known/openid-configuration":      `"jwks_uri":"https://tokens.example.com/keys"`,
	} {
		if resp, body := h.get(t, "GET", path); resp.StatusCode != 200 || !strings.Contains(body, want) {
			t.Errorf("%s = %d %q, want %s", path, resp.StatusCode, body, want)
		}
	}
	if resp, _ := h.get(t, "GET", "/.well-known/jwks.json"); resp.StatusCode != 404 {
		t.Errorf("the default path of a target that has another answers %d", resp.StatusCode)
	}
}

// The endpoint goes only forward, in one lineage.
func TestEndpointGenerationNeverFalls(t *testing.T) {
	h := startServed(t, publisher.Config{}, nil, httpTarget("endpoint", "", ""))
	a, b := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
	serves := func(generation string) func() bool {
		return func() bool {
			resp, _ := h.get(t, "GET", "/main/.well-known/jwks.json")
			return resp.Header.Get("Keyturn-Generation") == generation
		}
	}
	h.Accept("main", snapshot(time.Now(), 5, a))
	eventually(t, "generation 5 was served", serves("5"))
	h.Accept("main", snapshot(time.Now(), 4, b))
	h.Accept("main", snapshot(time.Now(), 6, a))
	eventually(t, "generation 6 was served", serves("6"))
	other := snapshot(time.Now(), 9, b)
	other.Lineage = "lineage-two"
	h.Accept("main", other)
	eventually(t, "another lineage was refused", func() bool { return slices.Contains(h.codes(), "publish_refused") })
	h.Accept("main", snapshot(time.Now(), 3, b)) // as a restored manifest would
	eventually(t, "an old generation was refused", func() bool {
		err := h.status(t, "endpoint").Err
		return err != nil && strings.Contains(err.Error(), "not generation 3")
	})
	if !serves("6")() {
		t.Error("the generation fell")
	}
	h.Accept("main", snapshot(time.Now(), 7, b))
	eventually(t, "generation 7 was served", serves("7"))
}

func certificate(t *testing.T, notAfter time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: notAfter, DNSNames: []string{"tokens.example.com"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// The endpoint counts as published only when it was reached through the real
// listener, and it was ours.
func TestEndpointReadBack(t *testing.T) {
	good, expired := certificate(t, time.Now().Add(time.Hour)), certificate(t, time.Now().Add(-time.Hour))
	impostor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"keys":[]}`)
	}))
	defer impostor.Close()
	for name, tc := range map[string]struct {
		present *tls.Certificate
		self    publisher.Self
		want    string // "" for confirmed
	}{
		"TLS, the right certificate": {good, publisher.Self{Leaf: func() *x509.Certificate { return good.Leaf }}, ""},
		"TLS, another certificate":   {good, publisher.Self{Leaf: func() *x509.Certificate { return expired.Leaf }}, "another certificate"},
		"TLS, expired":               {expired, publisher.Self{Leaf: func() *x509.Certificate { return expired.Leaf }}, "renew it"},
		"TLS, none loaded":           {good, publisher.Self{Leaf: func() *x509.Certificate { return nil }}, "another certificate"},
		"plain where TLS should be":  {nil, publisher.Self{Leaf: func() *x509.Certificate { return good.Leaf }}, "read the own endpoint back"},
		"nobody listens":             {nil, publisher.Self{Dial: nowhere}, "nobody listens"},
		"somebody else listens": {nil, publisher.Self{Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", impostor.Listener.Addr().String())
		}}, "another process"},
	} {
		t.Run(name, func(t *testing.T) {
			h := startServed(t, publisher.Config{Self: tc.self}, tc.present, httpTarget("endpoint", "", ""))
			key := newKey(t, keyring.ES256)
			h.Accept("main", snapshot(time.Now(), 1, key))
			if tc.want == "" {
				eventually(t, "it was confirmed", func() bool { return len(h.Confirmed("main")) == 1 })
				h.wantConfirmed(t, "endpoint", key)
				h.wantCodes(t)
				return
			}
			eventually(t, "the read-back failed", func() bool { return slices.Equal(h.codes(), []string{"publish_failed"}) })
			if err := h.status(t, "endpoint").Err; !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
			if len(h.Confirmed("main")) > 0 || h.events.woken.Load() > 0 || h.events.bad.Load() == 0 {
				t.Errorf("confirmed %v, woken %d, failures %d", h.Confirmed("main"), h.events.woken.Load(), h.events.bad.Load())
			}
		})
	}
}

// Keys that were taken over from another system are published like ours.
func TestAdoptedKeys(t *testing.T) {
	h := startServed(t, publisher.Config{}, nil, httpTarget("endpoint", "", ""))
	ours, theirs := newKey(t, keyring.ES256), newKey(t, keyring.EdDSA)
	s := snapshot(time.Now(), 1, ours)
	s.Adopted = []keyring.Adopted{{JWK: theirs, Until: time.Now().Add(time.Hour)}}
	h.Accept("main", s)
	eventually(t, "it was confirmed", func() bool { return len(h.Confirmed("main")) == 1 })
	h.wantConfirmed(t, "endpoint", ours, theirs)
	if _, body := h.get(t, "GET", "/main/.well-known/openid-configuration"); !strings.Contains(body, `["ES256","EdDSA"]`) {
		t.Errorf("discovery names other algorithms: %s", body)
	}
}

// pipes is a listener in memory, for a bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p *pipes) dial(context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// startPiped runs a publisher whose listener is in memory.
func startPiped(t *testing.T) *harness {
	t.Helper()
	ln := &pipes{make(chan net.Conn), make(chan struct{})}
	h := start(t, publisher.Config{Interval: interval, Self: publisher.Self{Dial: ln.dial}}, httpTarget("endpoint", "", ""))
	srv := &http.Server{Handler: h.Handler()}
	go srv.Serve(ln)
	t.Cleanup(func() { h.stop(); srv.Close() })
	synctest.Wait()
	return h
}

func (h *harness) ask() *http.Response {
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/main/.well-known/jwks.json", nil))
	return w.Result()
}

// The endpoint serves until serve_until and not a moment longer, whatever its
// goroutine does; and a key leaves it at its instant.
func TestEndpointEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startPiped(t)
		old, active := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		now := time.Now()
		s := snapshot(now, 1, active)
		s.Keys = append(s.Keys, keyring.Key{
			JWK: old, Ring: "web", Activated: now.Add(-time.Hour), Retired: now, SignUntil: now, Closed: now,
			Tail: keyring.Duration(30*time.Minute + 500*time.Millisecond),
		})
		if resp := h.ask(); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "10" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("before the first set: %d %v", resp.StatusCode, resp.Header)
		}
		h.wantCodes(t, "not_published!")
		h.accept(s)
		h.wantConfirmed(t, "endpoint", old, active)
		for _, tc := range []struct {
			after time.Duration
			want  string
		}{{0, "300"}, {26 * time.Minute, "240"}, {29*time.Minute + 20*time.Second, "40"}, {30 * time.Minute, "30"}} {
			rest(tc.after - time.Since(now))
			if got := h.ask().Header.Get("Cache-Control"); got != "public, max-age="+tc.want+", must-revalidate" {
				t.Errorf("%s before the withdrawal: %s, want %s", 30*time.Minute-tc.after, got, tc.want)
			}
		}
		rest(502 * time.Millisecond)
		resp := h.ask()
		body, _ := io.ReadAll(resp.Body)
		if strings.Contains(string(body), old.Kid) || !strings.Contains(string(body), active.Kid) || resp.Header.Get("Cache-Control") != "public, max-age=300, must-revalidate" {
			t.Errorf("after the withdrawal: %q %v", body, resp.Header)
		}
		h.wantConfirmed(t, "endpoint", active)

		rest(time.Until(s.ServeUntil()) - time.Millisecond)
		if resp := h.ask(); resp.StatusCode != 200 {
			t.Errorf("just before serve_until: %d", resp.StatusCode)
		}
		h.stop()
		rest(time.Millisecond)
		if resp := h.ask(); resp.StatusCode != 503 {
			t.Errorf("at serve_until: %d", resp.StatusCode)
		}
	})
}

func TestEndpointComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startPiped(t)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now().Add(-lease-tail), 1, key))
		h.wantCodes(t, "not_published!") // what is past its time is never served
		h.accept(snapshot(time.Now(), 2, key))
		rest(lease + tail + time.Second)
		h.wantCodes(t, "serve_expired!")
		h.accept(snapshot(time.Now(), 3, key))
		h.wantCodes(t)
		if resp := h.ask(); resp.StatusCode != 200 {
			t.Errorf("after the store came back: %d", resp.StatusCode)
		}
		// A set that would be empty is not served, and neither is the old one,
		// which shows a key that was revoked.
		s := snapshot(time.Now(), 4, key)
		s.Keys[0].Revoked = time.Now()
		h.accept(s)
		h.wantCodes(t, "publish_refused!")
		if resp := h.ask(); resp.StatusCode != 503 {
			t.Errorf("after the last key was revoked: %d", resp.StatusCode)
		}
	})
}
