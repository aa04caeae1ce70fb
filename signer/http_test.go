package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/token"
)

// client talks to a sign socket as any program does.
type client struct {
	t    testing.TB
	http *http.Client
}

func dial(t testing.TB, path string) client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return client{t, &http.Client{Transport: tr, Timeout: time.Minute}}
}

func (c client) do(method, path, body string) (*http.Response, []byte) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://keyturn"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, out
}

// listen serves the world's signer on a real socket until the test ends.
func (w *world) listen(name string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name+".sock")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.s.Serve(ctx, ln, name) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Serve = %v", err)
		}
	})
	return path
}

// mine lets the test's own user into all profiles but those for root alone.
func (w *world) mine() *world {
	uid := uint32(os.Getuid())
	for i := range w.cfg.Profiles {
		if w.cfg.Profiles[i].Name == "root" { // root runs these tests in CI: nobody's then
			w.cfg.Profiles[i].Allow = []profile.Rule{{UID: ptr(uid + 1)}}
			continue
		}
		w.cfg.Profiles[i].Allow = []profile.Rule{{UID: ptr(uid)}}
	}
	return w
}

func TestHTTPSign(t *testing.T) {
	w := newWorld(t, keyring.ES256, keyring.PS256, keyring.EdDSA).mine()
	logFile := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(logFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	w.cfg.Audit = log
	w.start().ready()
	c := dial(t, w.listen("default"))
	_, set := c.do("GET", "/v1/jwks", "")
	keys, err := token.ParseSet(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range w.cfg.Profiles {
		resp, body := c.do("POST", "/v1/sign", fmt.Sprintf(`{"profile":%q,"subject":"alice","audience":"demo"}`, p.Name))
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v %s", p.Name, resp.StatusCode, resp.Header, body)
		}
		got := decode[api.SignResponse](t, body)
		v, err := token.Verify(keys, got.Token, token.Options{Now: time.Now(), Issuer: keystest.URL, Audience: "demo", Typ: "JWT"})
		if err != nil {
			t.Fatal(err)
		}
		// The record was there before the answer.
		lines, err := os.ReadFile(logFile)
		if err != nil {
			t.Fatal(err)
		}
		parts := bytes.Split(bytes.TrimSpace(lines), []byte("\n"))
		rec := decode[audit.Record](t, parts[len(parts)-1])
		if rec.JTI != v.Claims.ID || rec.UID != uint32(os.Getuid()) || rec.PID != int32(os.Getpid()) || rec.Socket != "default" || rec.Decision != audit.Allow {
			t.Errorf("record %+v", rec)
		}
		if bytes.Contains(lines, []byte(got.Token)) {
			t.Error("the audit log holds the token")
		}
	}
}

func TestHTTPRefusals(t *testing.T) {
	w := refusingWorld(t).mine().start().ready()
	c := dial(t, w.listen("default"))
	var first []byte
	for name, tc := range refusals {
		resp, body := c.do("POST", "/v1/sign", tc.body)
		got := decode[api.Problem](t, body)
		if got.Code != tc.code || resp.StatusCode != got.Status || resp.Header.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if got.Code != api.Forbidden {
			continue
		}
		if first == nil {
			first = body
		}
		if !bytes.Equal(body, first) {
			t.Errorf("forbidden says more than forbidden:\n%s\n%s", body, first)
		}
	}
	if first == nil {
		t.Error("nothing was forbidden")
	}
}

func TestHTTPShape(t *testing.T) {
	w := newWorld(t, keyring.ES256).mine().start().ready()
	c := dial(t, w.listen("default"))
	for _, tc := range []struct {
		method, path, body string
		status             int
		code               api.Code
		header, value      string
	}{
		{"GET", "/v1/sign", "", 405, api.InvalidRequest, "Allow", "POST"},
		{"PUT", "/v1/sign/batch", "", 405, api.InvalidRequest, "Allow", "POST"},
		{"POST", "/v1/jwks", "", 405, api.InvalidRequest, "Allow", "GET"},
		{"DELETE", "/v1/profiles", "", 405, api.InvalidRequest, "Allow", "GET"},
		{"GET", "/", "", 404, api.NotFound, "", ""},
		{"POST", "/v1/sign/", "", 404, api.NotFound, "", ""},
		{"POST", "/v1/keys/export", "", 404, api.NotFound, "", ""},
		{"POST", "//v1/sign", `{}`, 404, api.NotFound, "Location", ""},
		{"GET", "/v1/../v1/profiles", "", 404, api.NotFound, "Location", ""},
		{"GET", "/v1/./profiles", "", 404, api.NotFound, "Location", ""},
		{"GET", "/v1/profiles/", "", 404, api.NotFound, "Location", ""},
		{"GET", "/v1%2Fprofiles", "", 404, api.NotFound, "Location", ""},
		{"GET", "/v1/%70rofiles", "", 404, api.NotFound, "Location", ""},
		{"HEAD", "/v1/sign/", "", 404, "", "", ""},
		{"HEAD", "/v1/profiles", "", 405, "", "Allow", "GET"},
		{"OPTIONS", "/v1/sign", "", 405, api.InvalidRequest, "Allow", "POST"},
		{"GET", "/v1/jwks?issuer=nope", "", 404, api.NotFound, "", ""},
		{"POST", "/v1/sign", `{"profile":"` + strings.Repeat("x", api.MaxSignBytes) + `"}`, 413, api.TooLarge, "", ""},
		{"POST", "/v1/sign", strings.Repeat(" ", 10<<20), 413, api.TooLarge, "", ""},
		{"POST", "/v1/sign/batch", `{}`, 400, api.InvalidRequest, "", ""},
		{"POST", "/v1/sign/batch", `{"requests":null}`, 400, api.InvalidRequest, "", ""},
		{"POST", "/v1/sign/batch", `{"requests":{}}`, 400, api.InvalidRequest, "", ""},
		{"POST", "/v1/sign/batch", `{"requests":[],"more":1}`, 400, api.InvalidRequest, "", ""},
		{"POST", "/v1/sign/batch", `{"requests":[` + strings.Repeat(`0,`, api.MaxBatch) + `0]}`, 413, api.TooLarge, "", ""},
	} {
		resp, body := c.do(tc.method, tc.path, tc.body)
		got := api.Problem{Status: resp.StatusCode}
		if tc.method != "HEAD" {
			got = decode[api.Problem](t, body)
		}
		if resp.StatusCode != tc.status || got.Code != tc.code || got.Status != tc.status || resp.Header.Get("Content-Type") != api.ProblemType || resp.Header.Get(tc.header) != tc.value {
			t.Errorf("%s %s: %d %v %s", tc.method, tc.path, resp.StatusCode, resp.Header, body)
		}
	}
	if _, body := c.do("GET", "/v1/issuers", ""); !strings.Contains(string(body), "POST /v1/sign, ") || !strings.Contains(string(body), "at the admin socket") {
		t.Errorf("another socket's path: %s", body)
	}
	// A body of unknown length is bounded as well.
	r, err := http.NewRequest("POST", "http://keyturn/v1/sign", struct{ io.Reader }{strings.NewReader(strings.Repeat(" ", api.MaxSignBytes+1))})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("a chunked body over the limit: %d", resp.StatusCode)
	}
}

func TestHTTPRetryAfter(t *testing.T) {
	w := newWorld(t, keyring.ES256).mine().start().ready()
	c := dial(t, w.listen("default"))
	ask := func() (*http.Response, api.Problem) {
		resp, body := c.do("POST", "/v1/sign", `{"profile":"p-ES256","subject":"u"}`)
		return resp, decode[api.Problem](t, body)
	}
	w.Change(func(s *keyring.Snapshot) { s.Lease = time.Now() })
	resp, prob := ask()
	if resp.StatusCode != 503 || prob.Code != api.SigningLapsed || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %+v", resp.StatusCode, resp.Header, prob)
	}
	w.Change(func(s *keyring.Snapshot) { s.Keys[0].Revoked = time.Now() })
	resp, prob = ask()
	if resp.StatusCode != 503 || prob.Code != api.NoActiveKey || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v %+v", resp.StatusCode, resp.Header, prob)
	}
}

func TestHTTPBatch(t *testing.T) {
	w := refusingWorld(t).mine().start().ready()
	c := dial(t, w.listen("default"))
	resp, body := c.do("POST", "/v1/sign/batch", `{"requests":[
		{"profile":"fixed"},
		{"profile":"nope"},
		{"profile":"fixed","unknown":1},
		17,
		{"profile":"p-ES256","subject":"`+strings.Repeat("x", api.MaxSignBytes)+`"},
		{"profile":"p-ES256","subject":"last"}]}`)
	if resp.StatusCode != 200 {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	got := decode[api.BatchResponse](t, body)
	var codes []string
	for _, r := range got.Results {
		switch {
		case r.Error != nil && r.SignResponse != nil:
			t.Error("a result is both a token and an error")
		case r.Error != nil:
			codes = append(codes, string(r.Error.Code))
		default:
			codes = append(codes, w.verify(r.Token).Claims.Subject)
		}
	}
	want := []string{"service", "forbidden", "invalid_request", "invalid_request", "too_large", "last"}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("results (-want +got):\n%s", diff)
	}
	_, body = c.do("POST", "/v1/sign/batch", `{"requests":[]}`)
	if string(bytes.TrimSpace(body)) != `{"results":[]}` {
		t.Errorf("an empty batch: %s", body)
	}
	full := `{"requests":[` + strings.Repeat(`{"profile":"fixed"},`, api.MaxBatch-1) + `{"profile":"fixed"}]}`
	_, body = c.do("POST", "/v1/sign/batch", full)
	jtis := map[string]bool{}
	for _, r := range decode[api.BatchResponse](t, body).Results {
		if r.SignResponse == nil {
			t.Fatalf("refused in a full batch: %v", r.Error)
		}
		jtis[w.verify(r.Token).Claims.ID] = true
	}
	if len(jtis) != api.MaxBatch {
		t.Errorf("%d tokens with a jti of their own, want %d", len(jtis), api.MaxBatch)
	}
}

func TestHTTPSetAndProfiles(t *testing.T) {
	w := refusingWorld(t).mine()
	w.cfg.Profiles = append(w.cfg.Profiles, anybody("elsewhere", "ES256"))
	w.cfg.Profiles[len(w.cfg.Profiles)-1].Allow = []profile.Rule{{Socket: "other"}}
	w.start().ready()
	here, other := dial(t, w.listen("default")), dial(t, w.listen("other"))
	resp, body := here.do("GET", "/v1/jwks", "")
	want, err := keyring.Set(w.Snap, time.Now(), keyring.ViewAll)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Header.Get("Content-Type") != "application/jwk-set+json" || !bytes.Equal(body, want.Body) {
		t.Errorf("%v %s", resp.Header, body)
	}
	names := func(c client) string {
		_, body := c.do("GET", "/v1/profiles", "")
		var out []string
		for _, p := range decode[api.Profiles](t, body).Profiles {
			out = append(out, p.Name)
		}
		return strings.Join(out, " ")
	}
	if got := names(here); got != "access any fixed orders p-ES256 p-ES384 peer short two" {
		t.Errorf("profiles here: %s", got)
	}
	if got := names(other); got != "access any elsewhere fixed orders p-ES256 p-ES384 peer short two" {
		t.Errorf("profiles on the other socket: %s", got)
	}
	_, body = here.do("GET", "/v1/profiles", "")
	var raw struct{ Profiles []json.RawMessage }
	if err := json.Unmarshal(body, &raw); err != nil {
		t.Fatal(err)
	}
	if got, want := string(raw.Profiles[3]), `{"name":"orders","issuer":"main","ring":"ES256","algorithm":"ES256","typ":"JWT","subject":{"pattern":"^user-[0-9]+$"},`+
		`"audiences":["api://orders"],"allowed_claims":["scope","tenant"],"required_claims":["tenant"],"default_ttl_seconds":300,"max_ttl_seconds":1800}`; got != want {
		t.Errorf("profile\n%s\nwant\n%s", got, want)
	}

	// What refuses a request that is sound in all else is listed as the file has it.
	limited := anybody("limited", "ES256")
	limited.When, limited.Rate = `request.subject == 'root'`, profile.Rate{PerSecond: 5}
	w.cfg.Profiles = []profile.Config{limited}
	w.mine()
	if err := w.s.SetProfiles(w.cfg.Profiles); err != nil {
		t.Fatal(err)
	}
	_, body = here.do("GET", "/v1/profiles", "")
	if got, want := string(body), `"when":"request.subject == 'root'","rate":{"per_second":5,"burst":5}}]}`+"\n"; !strings.HasSuffix(got, want) {
		t.Errorf("profile\n%s\nwant the end\n%s", got, want)
	}

	w.s.Accept("second", w.Snap)
	resp, body = here.do("GET", "/v1/jwks", "")
	if resp.StatusCode != 400 || !strings.Contains(string(body), "main, second (keyturn jwks ISSUER)") {
		t.Errorf("which of two issuers: %d %s", resp.StatusCode, body)
	}
	if resp, _ = here.do("GET", "/v1/jwks?issuer=second", ""); resp.StatusCode != 200 {
		t.Errorf("the second issuer: %d", resp.StatusCode)
	}
	w.Change(func(s *keyring.Snapshot) { s.Lease = time.Now().Add(-2 * time.Hour) })
	if resp, _ = here.do("GET", "/v1/jwks?issuer=main", ""); resp.StatusCode != 503 {
		t.Errorf("a set past serve_until: %d", resp.StatusCode)
	}
}

// A server that forgot ConnContext must not let anybody in.
func TestUnknownCallerIsForbidden(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	w.cfg.Profiles[0].Allow = []profile.Rule{{Socket: "default"}}
	w.start().ready()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: w.s.Handler("default")}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	resp, body := dial(t, ln.Addr().String()).do("POST", "/v1/sign", `{"profile":"p-ES256","subject":"u"}`)
	if resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if rec := w.rec.all()[0]; rec.UID != unixsock.Unknown || rec.Code != "forbidden" {
		t.Errorf("record %+v: an unknown caller is not root", rec)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.EdDSA, keyring.RS256} {
		w := newWorld(b, alg)
		w.start().ready()
		h := w.s.Handler("default")
		ctx := unixsock.WithPeer(b.Context(), alice.Peer)
		body := `{"profile":"p-` + string(alg) + `","subject":"user-1","claims":{"tenant":"acme","scope":"read"}}`
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.rec.mu.Lock()
				w.rec.records = w.rec.records[:0]
				w.rec.mu.Unlock()
				r, err := http.NewRequestWithContext(ctx, "POST", "/v1/sign", strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				out := discard{http.Header{}}
				h.ServeHTTP(out, r)
			}
		})
	}
}

// discard is an answer that nobody reads; anything but 200 stops the benchmark.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(status int)      { panic(fmt.Sprint("status ", status)) }
