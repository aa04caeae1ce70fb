package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/token"
)

// How old a key set may be: it is fetched again at refetch, and its keys are
// trusted until distrust, the consumer_cache of the operator's configuration,
// while there is no other. Between two fetches lies so much at least.
const refetch, distrust, between = 5 * time.Minute, 15 * time.Minute, 10 * time.Second

// service verifies the token of each request as RFC 8725 asks: the algorithm
// is the key's, and iss and aud are checked. A service that has go-oidc, jwx or
// another library for it already needs nothing of keyturn.
type service struct {
	issuer, audience string

	mu    sync.Mutex
	keys  []token.VerificationKey
	read  time.Time     // when they came
	asked time.Time     // when they were asked for last, whatever came of it
	over  chan struct{} // closed when that fetch has ended
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		http.Error(w, "a token is missing", http.StatusUnauthorized)
		return
	}
	v, err := s.verify(r.Context(), raw)
	if err != nil {
		log.Print("refused: ", err) // it holds no token
		http.Error(w, "the token is not good", http.StatusUnauthorized)
		return
	}
	fmt.Fprintf(w, "hello %s, whose token was signed with %s\n", v.Claims.Subject, v.Header.Kid)
}

// verify fetches the key set again when a token names a key that is not in it:
// keys turn over.
func (s *service) verify(ctx context.Context, raw string) (*token.Verified, error) {
	o := token.Options{Now: time.Now(), Leeway: 30 * time.Second, Issuer: s.issuer, Audience: s.audience}
	v, err := token.Verify(s.keySet(ctx, refetch), raw, o)
	if errors.Is(err, token.ErrUnknownKey) {
		v, err = token.Verify(s.keySet(ctx, 0), raw, o)
	}
	return v, err
}

// keySet fetches the set if it is older than that. Anybody can send tokens of
// keys that do not exist, and he gets nothing by it: one fetch is under way at a
// time, seldom, its failure counts too, and it goes on when he hangs up. Those
// whose keys are known do not wait for it.
func (s *service) keySet(ctx context.Context, age time.Duration) []token.VerificationKey {
	s.mu.Lock()
	mine := time.Since(s.read) >= age && time.Since(s.asked) >= between
	if mine {
		s.asked, s.over = time.Now(), make(chan struct{})
	}
	over := s.over
	s.mu.Unlock()
	switch {
	case mine:
		s.fetch(context.WithoutCancel(ctx), over)
	case age == 0: // without its key there is nothing but to wait for another set
		<-over
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.read) >= distrust {
		return nil
	}
	return s.keys
}

func (s *service) fetch(ctx context.Context, over chan struct{}) {
	defer close(over)
	keys, err := fetch(ctx, s.issuer+"/.well-known/jwks.json")
	if err != nil {
		log.Print("the key set stays as it is: ", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys, s.read = keys, time.Now()
}

func fetch(ctx context.Context, url string) ([]token.VerificationKey, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", url, resp.Status)
	}
	doc, err := io.ReadAll(io.LimitReader(resp.Body, token.MaxSetBytes+1))
	if err != nil {
		return nil, err
	}
	return token.ParseSet(doc)
}
