package publisher

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// route is one path of the public handler.
type route struct {
	endpoint *endpoint
	document func(*page) *document
}

// route makes a target's set reachable, and the issuer's discovery document
// with it: with the target at the default path if there is one, or else with
// the first. A target at a path of its own is for consumers of another kind.
func (p *Publisher) route(is Issuer, t Target, e *endpoint) {
	p.routes[t.path(is)] = route{e, func(p *page) *document { return &p.jwks }}
	at := is.wellKnown("openid-configuration")
	if _, taken := p.routes[at]; !taken || t.path(is) == is.wellKnown("jwks.json") {
		p.routes[at] = route{e, func(p *page) *document { return &p.discovery }}
	}
}

// serve answers consumers. It works on one page from beginning to end, so that
// body and headers belong together whatever is swapped meanwhile.
func (p *Publisher) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*") // keys are public
	h.Set("X-Content-Type-Options", "nosniff")
	rt, ok := p.routes[r.URL.Path]
	if !ok {
		http.Error(w, "nothing is published here", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "use GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	late := rt.endpoint.clock().Late
	page := rt.endpoint.page.Load()
	if page == nil || page.held.Expired(late) {
		h.Set("Retry-After", retryAfter(p.retry))
		h.Set("Cache-Control", "no-store")
		http.Error(w, "no key set can be served now", http.StatusServiceUnavailable)
		return
	}
	doc := rt.document(page)
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(page.cacheFor(late)/time.Second))+", must-revalidate")
	h.Set("ETag", doc.etag)
	h.Set(headerLineage, page.held.Lineage)
	h.Set(headerGeneration, strconv.FormatUint(page.held.Generation, 10))
	if matches(r.Header.Values("If-None-Match"), doc.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", doc.contentType)
	h.Set("Content-Length", strconv.Itoa(len(doc.body)))
	if _, err := w.Write(doc.body); err != nil {
		p.log.Debug("consumer went away", "error", err)
	}
}

// matches compares an If-None-Match header weakly (RFC 9110 §13.1.2). Our tags
// hold no comma, so splitting at commas finds each of them.
func matches(headers []string, etag string) bool {
	for _, header := range headers {
		for tag := range strings.SplitSeq(header, ",") {
			tag = strings.TrimSpace(tag)
			if tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
