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

// service verifies the token of each request as RFC 8725 asks: the algorithm
// is the key's, and iss and aud are checked. A service that has go-oidc, jwx or
// another library for it already needs nothing of keyturn.
type service struct {
	issuer, audience string

	mu   sync.Mutex
	keys []token.VerificationKey
	read time.Time
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

// verify reads the key set again when it is five minutes old, and at once, but
// not more often than every ten seconds, when a token names a key that it does
// not know: keys turn over.
func (s *service) verify(ctx context.Context, raw string) (*token.Verified, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := token.Options{Now: time.Now(), Leeway: 30 * time.Second, Issuer: s.issuer, Audience: s.audience}
	if age := time.Since(s.read); age < 5*time.Minute {
		v, err := token.Verify(s.keys, raw, o)
		if !errors.Is(err, token.ErrUnknownKey) || age < 10*time.Second {
			return v, err
		}
	}
	keys, err := fetch(ctx, s.issuer+"/.well-known/jwks.json")
	if err != nil {
		return nil, err
	}
	s.keys, s.read = keys, time.Now()
	return token.Verify(s.keys, raw, o)
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
