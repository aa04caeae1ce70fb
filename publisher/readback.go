package publisher

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/keyring"
)

// maxSet bounds a key set that is read: a hundred RSA-4096 keys are 90 KB.
const maxSet = 1 << 20

// fetchTimeout bounds a fetch, from the look-up of the name to the last byte.
const fetchTimeout = 10 * time.Second

// parseSet reads a JWK set (RFC 7517 §5) as a strict consumer would. Members
// that we do not write are allowed.
func parseSet(doc []byte) ([]keyring.JWK, error) {
	var set struct {
		Keys *[]keyring.JWK `json:"keys"`
	}
	if err := strictjson.UnmarshalOpen(doc, &set); err != nil {
		return nil, fmt.Errorf("not a key set: %w", err)
	}
	if set.Keys == nil {
		return nil, errors.New(`not a key set: it has no member "keys"`)
	}
	return *set.Keys, nil
}

// shown are the kids of the snapshot's keys that a set shows to the consumers
// of a view, sorted. A key that merely has one of our kids does not count, and
// neither does a kid that stands twice (RFC 7517 §4.5): a consumer may take
// the other one. What the view leaves out keeps nobody waiting.
func shown(s *keyring.Snapshot, set []keyring.JWK, view keyring.View) []string {
	found := make(map[string]keyring.JWK, len(set))
	doubtful := map[string]bool{}
	for _, k := range set {
		if other, ok := found[k.Kid]; ok && other != k {
			doubtful[k.Kid] = true
		}
		found[k.Kid] = k
	}
	kids := []string{}
	add := func(ours keyring.JWK) {
		theirs, ok := found[ours.Kid]
		if (ok && theirs == ours && !doubtful[ours.Kid]) || !view.Shows(ours.Alg) {
			kids = append(kids, ours.Kid)
		}
	}
	for i := range s.Keys {
		add(s.Keys[i].JWK)
	}
	for _, a := range s.Adopted {
		add(a.JWK)
	}
	slices.Sort(kids)
	return slices.Compact(kids)
}

// missing are the kids that should be in the set and were not shown, sorted.
func missing(s *keyring.Snapshot, now time.Time, shown []string) []string {
	want, err := keyring.Set(s, now, keyring.ViewAll)
	if err != nil { // then it was not published either, and that is reported
		return nil
	}
	return slices.DeleteFunc(want.Kids, func(kid string) bool {
		_, ok := slices.BinarySearch(shown, kid)
		return ok
	})
}

// behindError says which keys a confirm URL does not show.
type behindError struct {
	kids  []string
	since time.Time
}

func (e *behindError) Error() string {
	return fmt.Sprintf("the set there has lacked %s since %s, longer than consumer_cache: look for a cache on the way that keeps it too long, or for an upload that failed",
		strings.Join(e.kids, ", "), e.since.UTC().Format(time.RFC3339))
}

// fetched is a key set as a consumer got it.
type fetched struct {
	set    []keyring.JWK
	header http.Header
	at     time.Time
}

// fetch gets a key set as a careful consumer does: within a time, 200 only, no
// redirects (jose follows none), a bounded body.
func fetch(ctx context.Context, client *http.Client, url string) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fetched{}, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "keyturn-confirm")
	resp, err := client.Do(req)
	if err != nil {
		return fetched{}, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return fetched{}, fmt.Errorf("%s answered %d: consumers do not follow redirects to keys; serve the set at that URL itself", url, resp.StatusCode)
	case resp.StatusCode != http.StatusOK:
		return fetched{}, fmt.Errorf("%s answered %d, not 200", url, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	if err != nil {
		return fetched{}, fmt.Errorf("read %s: %w", url, err)
	}
	if len(body) > maxSet {
		return fetched{}, fmt.Errorf("%s holds more than %d bytes", url, maxSet)
	}
	set, err := parseSet(body)
	if err != nil {
		return fetched{}, fmt.Errorf("%s: %w", url, err)
	}
	return fetched{set: set, header: resp.Header, at: time.Now()}, nil
}

// newClient builds a client that behaves as fetch wants it. A connection is
// used once: a new one meets the name, the address and the certificate that a
// new consumer would meet.
func newClient(transport *http.Transport) *http.Client {
	transport.DisableKeepAlives = true
	transport.TLSHandshakeTimeout = fetchTimeout
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// confirm is a URL that others serve: it is read, never written.
type confirm struct {
	url    string
	client *http.Client
}

func newConfirm(roots *x509.CertPool, t Target) *confirm {
	return &confirm{url: t.ConfirmURL, client: newClient(&http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})}
}

func (c *confirm) step(ctx context.Context, j job) report {
	var r report
	if j.snapshot == nil || !j.snapshot.Servable() {
		return r // nothing to compare with
	}
	got, err := fetch(ctx, c.client, c.url)
	if err != nil {
		r.fail(CodeConfirmFailed, false, err)
		return r
	}
	r.set, r.readAt = got.set, got.at
	if lineage, generation := published(got.header); lineage == j.snapshot.Lineage {
		r.generation = generation
	}
	return r
}
