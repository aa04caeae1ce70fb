package vaulttest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
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
	// Hold keeps the request until Release, whether its client waits or not, and
	// carries it out then.
	Hold
)

// Seen is a request that came to a Proxy.
type Seen struct {
	At   time.Time
	Done time.Time // when it was answered or lost here; zero while it is on its way
	Verb string
	Path string
	// Status is the server's answer, also where the client never got it; 0 where
	// there is none.
	Status int
	// RetryAfter is that header of it.
	RetryAfter string
}

// Proxy forwards to a server, but for the faults that it is told.
type Proxy struct {
	// URL is where to connect instead.
	URL string

	target string
	client *http.Client

	mu       sync.Mutex
	decide   func(*http.Request) Fault
	requests []string
	seen     []Seen
	held     int
	release  chan struct{} // closed by Release
}

// NewProxy stands before target until the test ends. It passes everything.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, decide: func(*http.Request) Fault { return Pass }, release: make(chan struct{})}
	p.client = &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	server := httptest.NewServer(p)
	t.Cleanup(func() {
		p.Decide(func(*http.Request) Fault { return Pass })
		p.Release()
		server.Close()
	})
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

// Seen is all that came so far.
func (p *Proxy) Seen() []Seen {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

// Held is how many requests are held now.
func (p *Proxy) Held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// Release lets all requests go that are held.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.release)
	p.release = make(chan struct{})
}

// visit is a request on its way.
type visit struct {
	fault   Fault
	number  int           // in seen
	release chan struct{} // what it waits for, if it is to be held
}

// arrive notes a request and decides; depart notes what became of it.
func (p *Proxy) arrive(r *http.Request) visit {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, r.Method+" "+r.URL.Path)
	p.seen = append(p.seen, Seen{At: time.Now(), Verb: r.Method, Path: r.URL.Path})
	v := visit{fault: p.decide(r), number: len(p.seen) - 1}
	if v.fault == Hold {
		v.release = p.release
	}
	return v
}

func (p *Proxy) depart(i int, resp *http.Response) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[i].Done = time.Now()
	if resp != nil {
		p.seen[i].Status, p.seen[i].RetryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	}
}

func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := p.arrive(r)
	switch v.fault {
	case DropRequest:
		p.depart(v.number, nil)
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
	resp, err := p.forward(r, v.release)
	if err != nil {
		p.depart(v.number, nil)
		cut(w)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		cut(w)
		return
	}
	p.depart(v.number, resp)
	switch v.fault {
	case DropReply:
		cut(w)
		return
	case Hang:
		<-r.Context().Done()
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

// forward carries a request out, after release if that is not nil: what its
// client has sent arrives then, wherever the client is.
func (p *Proxy) forward(r *http.Request, release <-chan struct{}) (*http.Response, error) {
	var body io.Reader = r.Body
	if release != nil {
		whole, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(whole)
		p.wait(release)
	}
	out, err := http.NewRequest(r.Method, p.target+r.URL.RequestURI(), body)
	if err != nil {
		return nil, err
	}
	out.Header, out.ContentLength = r.Header.Clone(), r.ContentLength
	return p.client.Do(out)
}

// wait counts who waits.
func (p *Proxy) wait(release <-chan struct{}) {
	p.mu.Lock()
	p.held++
	p.mu.Unlock()
	<-release
	p.mu.Lock()
	p.held--
	p.mu.Unlock()
}

// cut closes the connection without a byte of an answer.
func cut(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_ = conn.Close()
	}
}
