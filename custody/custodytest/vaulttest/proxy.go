package vaulttest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// Fault is what a Proxy does to a request.
type Fault int

// The faults. After DropReply the server has carried the request out, and its
// client cannot know.
const (
	Pass Fault = iota
	DropRequest
	DropReply
	// Answer500 carries the request out and answers 500, as a node does that
	// loses its leader in the midst of it.
	Answer500
	// Answer307 does not carry it out and redirects to itself, as a standby
	// does that cannot forward.
	Answer307
	// Answer429 does not carry it out and asks to wait 7 s.
	Answer429
	// Answer204 does not carry it out and answers as if: an empty answer is what
	// a client makes of a second redirect.
	Answer204
	// Hang carries it out and answers when the client has gone.
	Hang
)

// Proxy forwards to a server, but for the faults that it is told.
type Proxy struct {
	// URL is where to connect instead.
	URL string

	target string
	client *http.Client

	mu       sync.Mutex
	decide   func(*http.Request) Fault
	requests []string
}

// NewProxy stands before target until the test ends. It passes everything.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, decide: func(*http.Request) Fault { return Pass }}
	p.client = &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.URL = server.URL
	return p
}

// Decide says what to do with each request from now on.
func (p *Proxy) Decide(decide func(*http.Request) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.decide = decide
}

// Next does these to the next requests that match, and passes the others.
func (p *Proxy) Next(match func(*http.Request) bool, faults ...Fault) {
	p.Decide(func(r *http.Request) Fault {
		if len(faults) == 0 || !match(r) {
			return Pass
		}
		f := faults[0]
		faults = faults[1:]
		return f
	})
}

// Requests are the verbs and paths so far, since the last call.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.requests
	p.requests = nil
	return out
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	fault := p.decide(r)
	p.mu.Unlock()
	switch fault {
	case DropRequest:
		cut(w)
		return
	case Answer307:
		http.Redirect(w, r, p.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		return
	case Answer204:
		w.WriteHeader(http.StatusNoContent)
		return
	case Answer429:
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"errors":["request path quota exceeded"]}`)
		return
	}
	gone := r.Context().Done()
	out, err := http.NewRequest(r.Method, p.target+r.URL.RequestURI(), r.Body)
	if err != nil {
		cut(w)
		return
	}
	out.Header, out.ContentLength = r.Header.Clone(), r.ContentLength
	resp, err := p.client.Do(out)
	if err != nil {
		cut(w)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		cut(w)
		return
	}
	switch fault {
	case DropReply:
		cut(w)
		return
	case Hang:
		<-gone
		return
	case Answer500:
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"errors":["local node not active but active cluster node not found"]}`)
		return
	}
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
}

// cut closes the connection without a byte of an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
