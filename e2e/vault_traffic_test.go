package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/api"
)

// traffic signs and verifies all the time, as the consumers do who follow the
// rules: each token with the set as it is now, at every endpoint, until the
// token has expired everywhere; and, when it is new, with the oldest copy that
// a consumer may still use. One failure fails the test.
type traffic struct {
	t         *testing.T
	client    *http.Client
	endpoints []string
	callers   []caller
	cache     time.Duration // the oldest copy that may be used
	leeway    time.Duration
	mortal    bool // the daemons are killed now and then, and sign nothing meanwhile

	mu       sync.Mutex
	copies   []setCopy
	live     map[string]liveToken // by kid: the one that lives longest
	kids     map[string][]string  // by caller's name: who signed, in order
	signed   int
	verified int
	failures int
	slowest  time.Duration
}

// caller asks one daemon for tokens, as long as it is there.
type caller struct {
	name string
	*daemon
	ask api.SignRequest
}

type setCopy struct {
	endpoint string
	at       time.Time
	keys     jose.JSONWebKeySet
}

type liveToken struct {
	token   string
	expires time.Time
}

var joseAlgorithms = []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA}

// startTraffic goes on until the test's end, or stop.
func startTraffic(tr *traffic) *traffic {
	tr.live, tr.kids = map[string]liveToken{}, map[string][]string{}
	if tr.client == nil {
		tr.client = &http.Client{Timeout: 5 * time.Second}
	}
	tr.leeway = time.Second
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				tr.tick()
			}
		}
	}()
	tr.t.Cleanup(func() {
		close(stop)
		<-stopped
		tr.t.Logf("%d tokens signed, the slowest in %s; %d verifications, %d failures; kids %v",
			tr.signed, tr.slowest.Round(time.Millisecond), tr.verified, tr.failures, tr.kids)
		if tr.verified < 50 {
			tr.t.Errorf("only %d verifications", tr.verified)
		}
	})
	return tr
}

// without keeps the traffic away while something that the test wants is not there.
func (tr *traffic) without(do func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	do()
}

func (tr *traffic) fail(format string, args ...any) {
	if tr.failures++; tr.failures <= 5 {
		tr.t.Errorf(format, args...)
	}
}

func (tr *traffic) tick() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	var now []setCopy
	for _, e := range tr.endpoints {
		c, err := tr.fetch(e)
		if err != nil {
			tr.fail("fetch the set: %v", err)
			continue
		}
		now = append(now, c)
	}
	tr.copies = append(tr.copies, now...)
	for _, c := range tr.callers {
		tr.sign(c)
	}
	for kid, l := range tr.live {
		if time.Now().After(l.expires.Add(tr.leeway)) {
			delete(tr.live, kid)
			continue
		}
		for _, c := range now {
			tr.verify(l.token, c)
		}
	}
}

func (tr *traffic) fetch(endpoint string) (setCopy, error) {
	c := setCopy{endpoint: endpoint, at: time.Now()}
	resp, err := tr.client.Get(endpoint)
	if err != nil {
		return c, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return c, fmt.Errorf("%s: status %d %v", endpoint, resp.StatusCode, err)
	}
	return c, json.Unmarshal(body, &c.keys)
}

// sign gets a token and verifies it with the oldest copies.
func (tr *traffic) sign(c caller) {
	start := time.Now()
	out, err := c.token(c.ask)
	tr.slowest = max(tr.slowest, time.Since(start))
	if err != nil {
		if !tr.mortal {
			tr.fail("%s: sign: %v", c.name, err)
		}
		return
	}
	tr.signed++
	if kids := tr.kids[c.name]; len(kids) == 0 || kids[len(kids)-1] != out.Kid {
		if slices.Contains(kids, out.Kid) {
			tr.fail("%s: %s signs again after %v", c.name, out.Kid, kids)
		}
		tr.kids[c.name] = append(kids, out.Kid)
	}
	if out.ExpiresAt.After(tr.live[out.Kid].expires) {
		tr.live[out.Kid] = liveToken{out.Token, out.ExpiresAt}
	}
	tr.copies = slices.DeleteFunc(tr.copies, func(c setCopy) bool { return time.Since(c.at) > tr.cache })
	old := map[string]bool{}
	for _, c := range tr.copies { // the oldest comes first
		if !old[c.endpoint] {
			old[c.endpoint] = true
			tr.verify(out.Token, c)
		}
	}
}

func (tr *traffic) verify(token string, c setCopy) {
	tr.verified++
	if err := verifyCopy(token, c.keys); err != nil {
		tr.fail("%s, copy of %s ago: %v", c.endpoint, time.Since(c.at).Round(time.Millisecond), err)
	}
}

// verifyCopy is what a consumer does with a copy of the set: the key by its
// kid, the algorithm by the key, the signature, nbf.
func verifyCopy(token string, set jose.JSONWebKeySet) error {
	sig, err := jose.ParseSignedCompact(token, joseAlgorithms)
	if err != nil {
		return err
	}
	head := sig.Signatures[0].Protected
	keys := set.Key(head.KeyID)
	if len(keys) != 1 {
		return fmt.Errorf("%d keys of kid %s in the set", len(keys), head.KeyID)
	}
	if keys[0].Algorithm != head.Algorithm {
		return fmt.Errorf("header alg %s, key alg %s", head.Algorithm, keys[0].Algorithm)
	}
	payload, err := sig.Verify(keys[0])
	if err != nil {
		return fmt.Errorf("kid %s: %w", head.KeyID, err)
	}
	var claims struct{ Nbf int64 }
	if err := json.Unmarshal(payload, &claims); err != nil || time.Now().Unix() < claims.Nbf {
		return fmt.Errorf("nbf %d: %v", claims.Nbf, err)
	}
	return nil
}

// signers are the kids that have signed for a caller, in order.
func (tr *traffic) signers(name string) []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return slices.Clone(tr.kids[name])
}

// signer is the kid that signs for a caller, once somebody does.
func (tr *traffic) signer(name string) string {
	tr.t.Helper()
	var kids []string
	within(tr.t, 10*time.Second, "a token for "+name, func() error {
		if kids = tr.signers(name); len(kids) == 0 {
			return errors.New("none")
		}
		return nil
	})
	return kids[len(kids)-1]
}

// end asks for nothing any more.
func (tr *traffic) end() {
	tr.without(func() { tr.callers, tr.endpoints = nil, nil })
}

// rotation waits until another key than now signs for every caller, then until
// nobody may use a copy or a token from before any more.
func (tr *traffic) rotation(limit time.Duration, tokenLife time.Duration) {
	tr.t.Helper()
	before := map[string]string{}
	for _, c := range tr.callers {
		before[c.name] = tr.signer(c.name)
	}
	within(tr.t, limit, "rotation", func() error {
		for name, kid := range before {
			if tr.signer(name) == kid {
				return fmt.Errorf("%s: %s still signs", name, kid)
			}
		}
		return nil
	})
	time.Sleep(max(tr.cache, tokenLife+tr.leeway) + 500*time.Millisecond)
}
