package publisher

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// The headers that carry what a side file carries for a file.
const (
	headerLineage    = "Keyturn-Lineage"
	headerGeneration = "Keyturn-Generation"
)

// endpoint is an http target: a page that is swapped whole, and the way back
// to it through the real listener.
type endpoint struct {
	page   atomic.Pointer[page]
	path   string
	url    string // where the listener is asked
	client *http.Client
	clock  func() Clock

	// mark is the newest set that was ever served; only step touches it.
	mark keyring.Held
}

// page is everything that requests are answered from; it is never changed.
type page struct {
	jwks, discovery document
	held            keyring.Held
	changes         time.Time
	maxAge          time.Duration
}

type document struct {
	contentType string
	body        []byte
	etag        string
}

func newDocument(contentType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{contentType, body, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

func newEndpoint(cfg *Config, is Issuer, t Target) (*endpoint, error) {
	u, err := checkURL(is.URL)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return cfg.Self.Dial(ctx) },
	}
	own := url.URL{Scheme: "http", Host: u.Host, Path: t.path(is)}
	if cfg.Self.Leaf != nil {
		own.Scheme = "https"
		transport.TLSClientConfig = cfg.Self.pin(u.Hostname())
	}
	return &endpoint{
		path:   t.path(is),
		url:    own.String(),
		client: newClient(transport),
		clock:  func() Clock { return cfg.clock(is.Name) },
	}, nil
}

// publicURL is a path at the origin of an issuer's URL.
func publicURL(issuerURL, path string) string {
	u, err := url.Parse(issuerURL)
	if err != nil { // the manifest holds no such URL
		return issuerURL + path
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}).String()
}

// pin is a TLS configuration that takes exactly the certificate that the
// listener was given, while it is valid.
func (s Self) pin(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host,
		// Not less than the usual check but another one: VerifyConnection
		// compares the very certificate.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			want, got := s.Leaf(), cs.PeerCertificates[0]
			if want == nil || !want.Equal(got) {
				return errors.New("the public listener presents another certificate than the configured one")
			}
			if now := time.Now(); now.Before(got.NotBefore) || now.After(got.NotAfter) {
				return fmt.Errorf("the certificate of the public listener is valid from %s to %s only: renew it", got.NotBefore, got.NotAfter)
			}
			return nil
		},
	}
}

func (e *endpoint) step(ctx context.Context, j job) report {
	var r report
	if err := e.publish(j, &r); err != nil {
		r.fail(CodePublishRefused, j.required && e.page.Load() == nil, err)
	}
	p := e.page.Load()
	switch {
	case p == nil && len(r.faults) == 0:
		r.fail(CodeNotPublished, j.required, errors.New("no key set has arrived yet: the endpoint answers 503 until the issuer's manifest has been read"))
		return r
	case p == nil:
		return r
	}
	r.serveUntil, r.changes = p.held.ServeUntil, p.changes
	if p.held.Expired(j.clock.Late) {
		r.fail(CodeServeExpired, j.required, fmt.Errorf(
			"the set of generation %d was not to be served after %s and no newer one has come: the endpoint answers 503 until the manifest can be read again",
			p.held.Generation, stamp(p.held.ServeUntil)))
		return r
	}
	got, err := fetch(ctx, e.client, e.url)
	if err == nil {
		lineage, generation := published(got.header)
		if lineage != p.held.Lineage || generation != p.held.Generation {
			err = fmt.Errorf("%s answered with generation %d of lineage %q, this process serves %d of %q: another process listens there",
				e.url, generation, lineage, p.held.Generation, p.held.Lineage)
		}
	}
	if err != nil {
		r.fail(CodePublishFailed, false, fmt.Errorf("read the own endpoint back: %w", err))
		return r
	}
	r.set, r.readAt, r.generation = got.set, got.at, p.held.Generation
	return r
}

// publish swaps in the page of the job's snapshot. The generation that is
// served never falls, and a set past its end is not served again.
func (e *endpoint) publish(j job, r *report) error {
	s := j.snapshot
	if s == nil || !s.Servable() || s.Hold(j.now).Expired(j.clock.Late) {
		return nil
	}
	if !e.mark.Yields(s) {
		return fmt.Errorf("generation %d of lineage %s was served already, and a set replaces only an older one of its lineage, not generation %d of %s",
			e.mark.Generation, e.mark.Lineage, s.Generation, s.Lineage)
	}
	next, err := e.render(j)
	if err != nil {
		// What is served may show a key that was revoked, so it does not stay.
		e.page.Store(nil)
		return err
	}
	old := e.page.Load()
	if old == nil || old.held.Generation != next.held.Generation || old.jwks.etag != next.jwks.etag {
		e.page.Store(next)
		r.wrote = true
	}
	e.mark = next.held
	return nil
}

func (e *endpoint) render(j job) (*page, error) {
	s := j.snapshot
	set, err := render(j)
	if err != nil {
		return nil, err
	}
	discovery, err := discovery(s, publicURL(s.Config.URL, e.path), set.Kids)
	if err != nil {
		return nil, err
	}
	return &page{
		jwks:      newDocument("application/jwk-set+json", set.Body),
		discovery: newDocument("application/json", discovery),
		held:      s.Hold(j.now),
		changes:   set.Changes,
		maxAge:    time.Duration(s.Config.JWKSMaxAge),
	}, nil
}

// render is the set of a job. An empty one is an error: no consumer could tell
// it from the loss of every key.
func render(j job) (keyring.Published, error) {
	set, err := keyring.Set(j.snapshot, j.clock.Early, j.view)
	switch {
	case err != nil:
		return keyring.Published{}, err
	case len(set.Kids) == 0 && j.view != keyring.ViewAll:
		return keyring.Published{}, fmt.Errorf("view %q leaves out every key, and an empty set is never published: use another view, or a ring of another algorithm", j.view)
	case len(set.Kids) == 0:
		return keyring.Published{}, errors.New("the manifest has no key left to publish, and an empty set is never published")
	}
	return set, nil
}

// discovery is the OpenID Provider Metadata (OIDC Discovery §3) of an issuer
// that has keys and no endpoints: what verifiers such as kube-apiserver and
// Vault read.
func discovery(s *keyring.Snapshot, jwksURL string, kids []string) ([]byte, error) {
	doc := struct {
		Issuer        string              `json:"issuer"`
		JWKSURI       string              `json:"jwks_uri"`
		Algorithms    []keyring.Algorithm `json:"id_token_signing_alg_values_supported"`
		ResponseTypes []string            `json:"response_types_supported"`
		SubjectTypes  []string            `json:"subject_types_supported"`
	}{s.Config.URL, jwksURL, nil, []string{"id_token"}, []string{"public"}}
	for _, kid := range kids {
		if k := s.Key(kid); k != nil {
			doc.Algorithms = append(doc.Algorithms, k.JWK.Alg)
		}
	}
	for _, a := range s.Adopted {
		if slices.Contains(kids, a.JWK.Kid) {
			doc.Algorithms = append(doc.Algorithms, a.JWK.Alg)
		}
	}
	slices.Sort(doc.Algorithms)
	doc.Algorithms = slices.Compact(doc.Algorithms)
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("render openid-configuration: %w", err)
	}
	return append(body, '\n'), nil
}

// published reads which set an answer says that it is; zero where it does not.
func published(h http.Header) (lineage string, generation uint64) {
	generation, err := strconv.ParseUint(h.Get(headerGeneration), 10, 64)
	if err != nil {
		return h.Get(headerLineage), 0
	}
	return h.Get(headerLineage), generation
}

// cacheFor is the max-age that goes with a page: jwks_max_age, shrinking to
// the next withdrawal, so that no cache keeps a key much longer than we do; but
// never below 30 seconds (or jwks_max_age, if that is less), or the moment of
// the withdrawal would bring every consumer at once.
func (p *page) cacheFor(now time.Time) time.Duration {
	age := p.maxAge
	if !p.changes.IsZero() {
		age = min(age, p.changes.Sub(now))
	}
	return max(age, min(p.maxAge, 30*time.Second), 0)
}

// retryAfter is what a 503 tells, in whole seconds.
func retryAfter(interval time.Duration) string {
	return strconv.Itoa(int(cmp.Or(interval.Round(time.Second), time.Second) / time.Second))
}
