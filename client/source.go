package client

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/api"
)

const (
	// maxMargin is how long before its end a token counts as used up: it still
	// has to travel, and clocks differ. Of short ones, a tenth of their life.
	maxMargin = 10 * time.Second
	// Between attempts that failed lies at least so much, and at most that.
	firstRest = time.Second
	lastRest  = 8 * time.Second
	// A token that is younger than this is not exchanged because a service
	// refused it: a new one would be no better.
	minAge = 5 * time.Second
)

// Source keeps one token fresh. It asks for the next one when two thirds of the
// life of the last have passed, in the background and once, however many ask
// it; until that is there, and while the daemon is away, the last one is given
// out until shortly before its end. It asks for nothing while nobody asks it.
//
// All its methods may be called concurrently. Its work ends with that of its
// Client (Close), and takes no longer than the Client's Timeout.
type Source struct {
	client *Client
	req    api.SignRequest

	current atomic.Pointer[held] // written under mu

	mu     sync.Mutex
	flight *flight // nil while nothing is asked for
	// failures counts attempts since the last token; before rest ends there is
	// no other, and the last one is the answer to those who need one.
	failures int
	rest     time.Time
	last     *flight
}

// held is a token with the times that follow from its life, on this host's
// clock and without a step of it: from before it was asked for.
type held struct {
	api.SignResponse
	got, refresh, end time.Time
}

// flight is an attempt that several may wait for.
type flight struct {
	obstacle atomic.Pointer[error] // what is in its way so far
	done     chan struct{}
	tok      *held // nil where err says why
	err      error
}

// Source is a source of tokens for a request, as it is now: what the caller
// changes in it later changes nothing here. It asks for nothing yet.
func (c *Client) Source(req api.SignRequest) *Source {
	req.Audience = slices.Clone(req.Audience)
	if req.Claims != nil {
		claims := make(map[string]json.RawMessage, len(req.Claims))
		for name, value := range req.Claims {
			claims[name] = slices.Clone(value)
		}
		req.Claims = claims
	}
	if req.TTLSeconds != nil {
		ttl := *req.TTLSeconds
		req.TTLSeconds = &ttl
	}
	return &Source{client: c, req: req}
}

// Token is a token that lives for some time yet. It waits for the daemon only
// where there is none, for as long as the context allows, and returns an error
// only then. ExpiresIn is the whole life of the token, ExpiresAt its end.
func (s *Source) Token(ctx context.Context) (api.SignResponse, error) {
	now := time.Now()
	if h := s.current.Load(); h != nil && before(now, h.refresh) {
		return h.SignResponse, nil
	}
	s.mu.Lock()
	h := s.current.Load()
	good := h != nil && before(now, h.end)
	f := s.flight
	switch {
	case f != nil || h != nil && before(now, h.refresh):
	case now.Before(s.rest):
		f = s.last
	default:
		f = s.takeOff()
	}
	s.mu.Unlock()
	if good {
		return h.SignResponse, nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		why := ctx.Err()
		if last := f.obstacle.Load(); last != nil {
			why = ended(why, *last)
		}
		return api.SignResponse{}, s.client.failed("sign", why)
	}
	if f.err != nil {
		return api.SignResponse{}, f.err
	}
	return f.tok.SignResponse, nil
}

// Invalidate tells the source that a service has refused this token, as after a
// revocation of its key: the next call of Token waits for another one. Nothing
// happens where the source has another one by now, or where the token is so
// young that a new one would be refused as well.
func (s *Source) Invalidate(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.current.Load(); h != nil && h.Token == token && time.Since(h.got) >= minAge {
		s.current.Store(nil)
	}
}

// takeOff starts an attempt. It is called under mu, without one under way.
func (s *Source) takeOff() *flight {
	f := &flight{done: make(chan struct{})}
	s.flight = f
	if !s.client.begin() {
		s.land(f, nil, s.client.failed("sign", errClosed))
		return f
	}
	go func() {
		defer s.client.work.Done()
		tok, err := s.fetch(func(err error) { f.obstacle.Store(&err) })
		s.mu.Lock()
		defer s.mu.Unlock()
		s.land(f, tok, err)
	}()
	return f
}

// fetch asks for a token on nobody's context: many may wait for it.
func (s *Source) fetch(tell func(error)) (*held, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(s.client.base, obstacle{}, tell), s.client.timeout)
	defer cancel()
	got := time.Now()
	resp, err := s.client.Sign(ctx, s.req)
	if err != nil {
		return nil, err
	}
	return hold(resp, got), nil
}

// hold counts the life of a token from before it was asked for.
func hold(resp *api.SignResponse, got time.Time) *held {
	life := time.Duration(resp.ExpiresIn) * time.Second
	return &held{
		SignResponse: *resp, got: got,
		refresh: got.Add(jitter(life*3/5, 10.0/9)), // from 0.6 to two thirds
		end:     got.Add(life - min(maxMargin, life/10)),
	}
}

// land ends an attempt. It is called under mu.
func (s *Source) land(f *flight, tok *held, err error) {
	f.tok, f.err = tok, err
	s.flight, s.last = nil, f
	if err == nil {
		s.current.Store(tok)
		s.failures, s.rest = 0, time.Time{}
	} else {
		s.rest = time.Now().Add(jitter(min(firstRest<<min(s.failures, 8), lastRest)/2, 2))
		s.failures++
	}
	close(f.done)
}

// before compares by the monotonic clock, which no step moves, and by the wall
// clock, which goes on while the machine is suspended: a time has come when it
// has by either.
func before(now, t time.Time) bool { return now.Before(t) && now.Round(0).Before(t.Round(0)) }
