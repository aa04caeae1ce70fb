package main

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client/clienttest"
	"github.com/keyturn/keyturn/token"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// endpoint is where a key set is published. While it is away it keeps everybody
// waiting, until it gives up.
type endpoint struct {
	*httptest.Server
	set     string // its URL at the issuer's
	away    atomic.Bool
	giveUp  chan struct{}
	fetches atomic.Int32
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.fetches.Add(1)
	if e.away.Load() {
		select {
		case <-e.giveUp:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	resp, err := http.Get(e.set)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(w, resp.Body) // the service tells
}

// site is an issuer, a service that takes its tokens, and somebody who signs
// with a key that is in no set.
func site(t *testing.T) (e *endpoint, s *service, good, junk string) {
	e = &endpoint{giveUp: make(chan struct{})}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	kt := clienttest.New(t, clienttest.Config{Issuer: e.URL})
	e.set = kt.JWKSURL()
	req := api.SignRequest{Profile: "p", Subject: "alice", Audience: api.Audience{"demo"}}
	stranger := clienttest.New(t, clienttest.Config{Issuer: e.URL})
	return e, &service{issuer: e.URL, audience: "demo"}, kt.Token(req), stranger.Token(req)
}

// aged moves the service's last fetch and its last try into the past.
func (s *service) aged(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read, s.asked = s.read.Add(-d), s.asked.Add(-d)
}

// TestJunkStarvesNobody: while the key set cannot be fetched, tokens of keys
// that do not exist cost those of known keys nothing.
func TestJunkStarvesNobody(t *testing.T) {
	e, s, good, junk := site(t)
	if _, err := s.verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	e.away.Store(true)
	s.aged(time.Minute)
	before := e.fetches.Load()
	var strangers sync.WaitGroup
	gone, hangUp := context.WithCancel(t.Context())
	for range 20 {
		strangers.Go(func() {
			if _, err := s.verify(gone, junk); !errors.Is(err, token.ErrUnknownKey) {
				t.Errorf("junk: %v", err)
			}
		})
	}
	for began := time.Now(); e.fetches.Load() == before; time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatal("nobody asks for the set")
		}
	}
	began := time.Now()
	for range 100 {
		if _, err := s.verify(t.Context(), good); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("100 good tokens take %s", took)
	}
	hangUp()
	close(e.giveUp)
	strangers.Wait()
	// The attempt counts, though it has failed.
	if _, err := s.verify(t.Context(), junk); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("junk: %v", err)
	}
	if n := e.fetches.Load() - before; n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// TestOldKeys: a set that cannot be fetched again is good until consumer_cache
// has passed, and no longer.
func TestOldKeys(t *testing.T) {
	e, s, good, _ := site(t)
	close(e.giveUp)
	for _, step := range []struct {
		age  time.Duration
		away bool
		good bool
	}{{0, false, true}, {refetch, true, true}, {distrust - refetch, true, false}, {between, false, true}} {
		s.aged(step.age)
		e.away.Store(step.away)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // that somebody hangs up does not end a fetch
		if _, err := s.verify(ctx, good); (err == nil) != step.good {
			t.Errorf("%+v: %v", step, err)
		}
	}
}

// TestManyAtTheStart: all who come before there is a set wait for it.
func TestManyAtTheStart(t *testing.T) {
	e, s, good, _ := site(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := s.verify(t.Context(), good); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := e.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}
