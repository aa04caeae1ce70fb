package e2e

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo is what stands between a daemon and its Vault and says aloud what goes
// through it: a firewall that shows the request that it refuses, a server that
// quotes what it cannot read.
type echo struct {
	c      *canaries
	server *httptest.Server
	mu     sync.Mutex
	turn   map[string]int // of a verb, how often a half went by
}

// parrots answer with a half, each in a way of its own: first to who deposits
// one, then to who reads one. After them it is Vault who answers.
var parrots = map[string][]func(w http.ResponseWriter, doc []byte){
	http.MethodPut: {
		func(w http.ResponseWriter, doc []byte) { say(w, 400, map[string]any{"errors": []string{string(doc)}}) },
		func(w http.ResponseWriter, doc []byte) {
			w.Header().Set("Location", "/v1/"+url.PathEscape(string(doc)))
			w.WriteHeader(307)
		},
		func(w http.ResponseWriter, doc []byte) {
			say(w, 200, map[string]any{"warnings": []string{string(doc)}, "data": map[string]any{string(doc): "x", "version": string(doc)}})
		},
	},
	http.MethodGet: {
		func(w http.ResponseWriter, doc []byte) { say(w, 403, map[string]any{"errors": []string{string(doc)}}) },
		func(w http.ResponseWriter, doc []byte) {
			http.Error(w, "<html>refused: <pre>"+string(doc)+"</pre></html>", http.StatusBadGateway)
		},
		func(w http.ResponseWriter, doc []byte) {
			_, _ = w.Write(append(doc[:len(doc)-5:len(doc)-5], `"}{`...)) // no JSON any more
		},
	},
}

func say(w http.ResponseWriter, status int, body any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}

func newEcho(t *testing.T, c *canaries, vault string) *echo {
	t.Helper()
	e := &echo{c: c, turn: map[string]int{}}
	to := must1(url.Parse(vault))(t)
	behind := httputil.NewSingleHostReverseProxy(to)
	e.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/data/issuers/main/keys/") {
			behind.ServeHTTP(w, r)
			return
		}
		asked, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(asked))
		answer := httptest.NewRecorder()
		doc := asked
		if r.Method == http.MethodGet {
			behind.ServeHTTP(answer, r)
			doc = answer.Body.Bytes()
		}
		if e.hears(path.Base(r.URL.Path), doc) {
			if parrot := e.next(r.Method); parrot != nil {
				parrot(w, doc)
				return
			}
		}
		if r.Method != http.MethodGet {
			behind.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(doc) // the client may have gone
	}))
	t.Cleanup(e.server.Close)
	return e
}

// hears keeps the half that a document holds, if it holds one.
func (e *echo) hears(kid string, doc []byte) bool {
	var body struct {
		Data struct {
			PrivateKey string `json:"private_key"`
			Data       struct {
				PrivateKey string `json:"private_key"`
			}
		}
	}
	if json.Unmarshal(doc, &body) != nil {
		return false
	}
	block, _ := pem.Decode([]byte(body.Data.PrivateKey + body.Data.Data.PrivateKey))
	if block == nil {
		return false
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.c.keys[kid] = key.(crypto.Signer)
	return true
}

// next is who answers now; nil for Vault itself.
func (e *echo) next(verb string) func(http.ResponseWriter, []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.turn[verb]
	e.turn[verb]++
	if n < len(parrots[verb]) {
		return parrots[verb][n]
	}
	return nil
}

// spoke reports whether all parrots have.
func (e *echo) spoke() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for verb, all := range parrots {
		if e.turn[verb] < len(all) {
			return fmt.Errorf("%d answers of %d to %s", e.turn[verb], len(all), verb)
		}
	}
	return nil
}

// TestCanaryInVault: what stands between keyturn and Vault quotes private halves
// in its errors, while they are deposited and while they are read. keyturn tells
// that it failed, and not what it was told.
func TestCanaryInVault(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	c := &canaries{t: t, keys: map[string]crypto.Signer{}}
	e := newEcho(t, c, server.URL())
	s.edit(server.URL(), e.server.URL)
	d := s.run()
	within(t, 120*time.Second, "every wrong answer", e.spoke)
	docs := d.answers()
	d.canSign(60*time.Second, "web")
	for name, doc := range d.answers() {
		docs["later: "+name] = doc
	}
	for _, args := range [][]string{{"keys", "-o", "json"}, {"status", "-o", "yaml"}} {
		docs[strings.Join(args, " ")] = []byte(d.ok(args...))
	}
	d.stop()
	docs["its output"] = []byte(d.out.String())
	wants(t, d.out.String(), "key_not_created")
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(c.keys) < 2 {
		t.Errorf("only %d keys went by", len(c.keys))
	}
	c.silent(docs, s.dir)
}
