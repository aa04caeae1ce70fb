package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/api"
)

// issued is a token, from whom and when.
type issued struct {
	raw, kid, ring string
	replica        int
	asked, got     time.Time
	expires        time.Time
}

func (i *issued) String() string {
	return fmt.Sprintf("token of ring %s, kid %s, from replica %d at %s", i.ring, i.kid, i.replica, i.got.UTC().Format("15:04:05.000"))
}

// end is when the slowest clock within E reads exp + λ.
func (i *issued) end() time.Time { return i.expires.Add(chaosLeeway + chaosE) }

// issue asks a replica for tokens of a ring, again and again.
func (c *chaos) issue(r *replica, ring string) {
	client := overUnix(r.sign)
	client.Timeout = 30 * time.Second // what a stopped process says when it goes on counts
	body, err := json.Marshal(ask(ring))
	if err != nil {
		c.ledger.fail("harness", "%v", err)
		return
	}
	for {
		select {
		case <-c.enough:
			return
		case <-time.After(c.every):
		}
		if !slices.Contains(r.now().rings(), ring) {
			continue
		}
		asked := time.Now()
		var out api.SignResponse
		err := call(client, http.MethodPost, "http://keyturn/v1/sign", body, &out)
		got := time.Now()
		if err != nil {
			c.refused(r, ring, asked, got, err)
			continue
		}
		c.ledger.count("tokens issued")
		c.ledger.count("tokens of ring " + ring)
		c.follow(&issued{out.Token, out.Kid, ring, r.index, asked, got, out.ExpiresAt})
	}
}

// refused: a refusal is no failure while something explains it.
func (c *chaos) refused(r *replica, ring string, asked, got time.Time, err error) {
	var p *api.Problem
	code, excused := "not answered", c.weather.mayRefuse(r.index, asked, got)
	if errors.As(err, &p) {
		code = string(p.Code)
		switch p.Code {
		case api.NoActiveKey, api.Forbidden: // a new ring waits its lead, and a ring that is left out signs no more
			excused = excused || ring == "extra"
		case api.TTLTooLong: // the files differ, and the manifest holds
			excused = excused || c.weather.touches(rolling, everywhere, asked, got, 3*time.Second)
		}
	}
	if excused {
		c.ledger.count("refusals, excused by a fault: " + code)
		return
	}
	c.ledger.count("refusals, unexcused")
	c.ledger.fail("refused", "replica %d, ring %s, asked at %s: %v", r.index, ring, asked.UTC().Format("15:04:05.000"), err)
}

// follow verifies a token from when it is issued until nobody grants it any
// more, as the consumers do.
func (c *chaos) follow(tok *issued) {
	c.mu.Lock()
	c.tokens = append(c.tokens, tok)
	c.mu.Unlock()
	// The fastest clock and the slowest one, while each must take the token.
	c.judge(tok, -chaosE)
	c.consumers.Go(func() { c.hot(tok) })
	later := func(at time.Time, offset time.Duration) {
		c.consumers.Add(1)
		time.AfterFunc(time.Until(at), func() {
			defer c.consumers.Done()
			c.judge(tok, offset)
		})
	}
	// Tokens of one second end together, and not all can be judged in one instant.
	early := 50*time.Millisecond + rand.N(400*time.Millisecond)
	later(tok.got.Add(tok.expires.Sub(tok.got)/2), 0)
	later(tok.end().Add(-2*chaosE-early), chaosE)
	later(tok.end().Add(-chaosE-early), 0)
	later(tok.end().Add(-early), -chaosE)
	c.consumers.Add(1)
	time.AfterFunc(time.Until(tok.end().Add(100*time.Millisecond)), func() {
		defer c.consumers.Done()
		c.judgeAll(tok)
	})
}

// judge verifies a token now, with the clock off by some time, as consumers do
// that have the newest and the oldest copy that they may use of each place.
func (c *chaos) judge(tok *issued, offset time.Duration) {
	for _, p := range c.places {
		now := time.Now()
		if reads := now.Add(offset); !reads.Before(tok.expires.Add(chaosLeeway)) {
			c.ledger.count("verifications that came too late on this machine")
			return
		}
		copies := p.between(now.Add(-chaosC), now)
		if len(copies) == 0 {
			c.ledger.count("verifications without a copy of the place")
			continue
		}
		oldest, newest := copies[0], copies[len(copies)-1]
		c.verdict("oldest copy, go-jose", tok, p, oldest, now, strictly(tok, oldest.set.jose, now.Add(offset), c.issuer))
		c.verdict("newest copy, go-jose", tok, p, newest, now, strictly(tok, newest.set.jose, now.Add(offset), c.issuer))
	}
}

func (c *chaos) verdict(consumer string, tok *issued, p *place, got fetchedCopy, now time.Time, err error) {
	c.ledger.count("verified, " + consumer)
	if err != nil {
		c.ledger.fail(unverifiable, "%s: %v; %s, copy from %s of generation %d, fetched %s before, holds %v",
			consumer, err, tok, p.name, got.generation, now.Sub(got.start).Round(time.Millisecond), got.set.kids)
	}
}

// strictly is what a consumer does with a copy of the set: the key by its kid,
// the algorithm by the key, the signature, iss, aud, nbf, and exp with leeway.
func strictly(tok *issued, set jose.JSONWebKeySet, now time.Time, issuer string) error {
	sig, err := jose.ParseSignedCompact(tok.raw, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.EdDSA})
	if err != nil {
		return err
	}
	head := sig.Signatures[0].Protected
	keys := set.Key(head.KeyID)
	if len(keys) != 1 {
		return fmt.Errorf("%d keys of kid %s in the set", len(keys), head.KeyID)
	}
	if keys[0].Algorithm != head.Algorithm || keys[0].Use != "sig" || head.KeyID != tok.kid {
		return fmt.Errorf("header %s %s, key %s for %q", head.Algorithm, head.KeyID, keys[0].Algorithm, keys[0].Use)
	}
	payload, err := sig.Verify(keys[0])
	if err != nil {
		return fmt.Errorf("kid %s: %w", head.KeyID, err)
	}
	var claims struct {
		Iss      string
		Aud      []string
		Nbf, Exp int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	switch {
	case claims.Iss != issuer || !slices.Contains(claims.Aud, "demo"):
		return fmt.Errorf("iss %s, aud %v", claims.Iss, claims.Aud)
	case now.Before(time.Unix(claims.Nbf, 0)):
		return fmt.Errorf("nbf %d, the clock says %d", claims.Nbf, now.Unix())
	case !now.Before(time.Unix(claims.Exp, 0).Add(chaosLeeway)) || tok.expires.Unix() != claims.Exp:
		return fmt.Errorf("exp %d, the clock says %d", claims.Exp, now.Unix())
	}
	return nil
}

// judgeAll looks for the token's key, byte for byte the same, in every copy of
// every place that any consumer may have used for it (I1).
func (c *chaos) judgeAll(tok *issued) {
	for _, p := range c.places {
		for _, got := range p.between(tok.got.Add(-chaosC), tok.end()) {
			c.ledger.count("verified, every copy holds the key")
			if _, found := slices.BinarySearch(got.set.kids, tok.kid); !found {
				c.ledger.fail(unverifiable, "%s: its key is missing in the copy from %s of generation %d, fetched at %s, which holds %v",
					tok, p.name, got.generation, got.start.UTC().Format("15:04:05.000"), got.set.kids)
			}
		}
	}
}

// cachingTransport keeps an answer for as long as a consumer may, counted from
// when it asked, and then asks the next replica that serves.
type cachingTransport struct {
	chaos *chaos
	first int // the replica that is asked first

	mu   sync.Mutex
	body []byte
	from time.Time
	lost bool // the last fetch found nobody
}

func (t *cachingTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.body == nil || now.Sub(t.from) > chaosC {
		t.body, t.from, t.lost = nil, now, true
		for i := range t.chaos.replicas {
			p := t.chaos.places[(t.first+i)%len(t.chaos.replicas)] // the endpoints come first
			t.from = time.Now()
			if body, _, err := p.fetch(); err == nil {
				t.body, t.lost = body, false
				break
			}
		}
	}
	if t.body == nil {
		return nil, errors.New("no replica serves the set")
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/jwk-set+json"}},
		Body: io.NopCloser(bytes.NewReader(t.body)), Request: req}, nil
}

// hotConsumer is go-oidc, which keeps what it knows until it meets a new kid.
type hotConsumer struct {
	transport *cachingTransport
	keys      *oidc.RemoteKeySet
}

func newHotConsumer(c *chaos, first int) *hotConsumer {
	h := &hotConsumer{transport: &cachingTransport{chaos: c, first: first}}
	ctx := oidc.ClientContext(context.Background(), &http.Client{Transport: h.transport})
	h.keys = oidc.NewRemoteKeySet(ctx, "http://caching.invalid/jwks.json")
	return h
}

// hot asks the consumers that were there from the beginning. What they are told
// of the time is when they were asked: a fetch from a stopped replica takes long.
func (c *chaos) hot(tok *issued) {
	asked := time.Now()
	if !asked.Before(tok.expires) {
		return // from a process that was stopped when it answered
	}
	verify := &oidc.Config{ClientID: "demo", SupportedSigningAlgs: []string{"ES256", "ES384", "EdDSA"}, Now: func() time.Time { return asked }}
	for _, h := range c.hots {
		_, err := oidc.NewVerifier(c.issuer, h.keys, verify).Verify(context.Background(), tok.raw)
		h.transport.mu.Lock()
		lost := h.transport.lost
		h.transport.mu.Unlock()
		switch now := time.Now(); {
		case err == nil:
			c.ledger.count("verified, go-oidc through a cache")
		case lost && c.nobodyServes(asked, now):
			c.ledger.count("go-oidc found nobody who serves, excused by a fault")
		default:
			c.ledger.fail(unverifiable, "go-oidc: %v; %s", err, tok)
		}
	}
}

// nobodyServes reports that every endpoint may be away.
func (c *chaos) nobodyServes(from, to time.Time) bool {
	for _, r := range c.replicas {
		if !c.weather.mayNotServe(r.index, from, to, r.now().tail()) {
			return false
		}
	}
	return true
}
