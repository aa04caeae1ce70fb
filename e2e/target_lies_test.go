package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// liar is a cache before an endpoint that can stop telling the truth: it then
// serves the last set that it got.
type liar struct {
	upstream string

	mu    sync.Mutex
	lies  bool
	last  []byte
	given http.Header
}

func (l *liar) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.lies {
		resp, err := http.Get(l.upstream)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			http.Error(w, fmt.Sprint(resp.Status, err), http.StatusBadGateway)
			return
		}
		l.last, l.given = body, resp.Header
	}
	for _, name := range []string{"Content-Type", "ETag", "Keyturn-Lineage", "Keyturn-Generation"} {
		w.Header().Set(name, l.given.Get(name))
	}
	_, _ = w.Write(l.last)
}

func (l *liar) lie(yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies = yes
}

// TestTargetThatLies: a cache before the confirm URL serves the old set for a
// minute. No key that it does not show signs before it tells the truth again
// and the lead has passed; meanwhile operators see who is behind, and whoever
// fetches through that cache verifies every token.
func TestTargetThatLies(t *testing.T) {
	t.Parallel()
	const lying, lead, every = 60 * time.Second, 3 * time.Second, 10 * time.Second
	s := newSite(t)
	cache := &liar{upstream: "http://" + s.public + "/.well-known/jwks.json"}
	proxy := httptest.NewServer(cache)
	defer proxy.Close()
	url := proxy.URL + "/jwks.json"
	s.edit("      - {name: endpoint, http: true}", "      - {name: endpoint, http: true}\n    confirm: [\""+url+"\"]")
	d := s.start("web")
	known := []string{d.standby(15*time.Second, "web").Kid, d.mustToken("web").Kid}

	cache.lie(true)
	until := time.Now().Add(lying)
	c := &consumerBehind{d: d, url: url}
	told := false
	for time.Now().Before(until) {
		kid := c.turn(t)
		if kid != known[0] && kid != known[1] {
			t.Fatalf("%s signs while the cache lies; it knows only %v", kid, known)
		}
		if time.Now().After(until.Add(-lying/2)) && !told { // two rotations have been due
			told = true
			tellsWhoIsBehind(t, d, url)
		}
	}
	if d.mustToken("web").Kid != known[0] {
		t.Errorf("the standby that the cache did show never signed")
	}
	next, found := d.key("web", "standby")
	if !found || !next.SafeAt.IsZero() {
		t.Fatalf("standby %+v, found %v", next, found)
	}
	truth := time.Now()
	cache.lie(false)
	for kid := ""; kid != next.Kid; kid = c.turn(t) {
		if time.Since(truth) > lead+every {
			t.Fatalf("%s does not sign %s after the cache tells the truth: %s signs", next.Kid, lead+every, kid)
		}
	}
	active, _ := d.key("web", "active")
	if early := truth.Add(lead); active.Kid != next.Kid || active.ActivatedAt.Before(early) {
		t.Errorf("%s became active at %s, and the cache told the truth at %s: not before %s", active.Kid, active.ActivatedAt, truth, early)
	}
	within(t, 5*time.Second, "all well again", func() error {
		if _, h, err := d.health("/readyz"); err != nil || h.Status != "ok" {
			return fmt.Errorf("%+v %v", h, err)
		}
		return nil
	})
	t.Logf("%d tokens verified through the cache", c.verified)
}

// consumerBehind verifies with what the lying cache serves.
type consumerBehind struct {
	d        *daemon
	url      string
	live     []api.SignResponse
	verified int
}

// turn signs a token and verifies it and all older ones that live; it returns
// who signed.
func (c *consumerBehind) turn(t *testing.T) string {
	t.Helper()
	tok := c.d.mustToken("web")
	live := c.live[:0]
	for _, old := range append(c.live, tok) {
		if time.Until(old.ExpiresAt) < time.Second {
			continue
		}
		live = append(live, old)
	}
	c.live = live
	var raw []string
	for _, l := range live {
		raw = append(raw, l.Token)
	}
	issuer := claimsOf(tok.Token)["iss"].(string)
	if _, err := goOIDC(t, c.url, issuer, "demo", 0, raw); err != nil {
		t.Fatalf("through the cache: %v, while %s signs", err, tok.Kid)
	}
	c.verified += len(raw)
	time.Sleep(250 * time.Millisecond)
	return tok.Kid
}

// tellsWhoIsBehind reads what an operator would.
func tellsWhoIsBehind(t *testing.T, d *daemon, url string) {
	t.Helper()
	table, errs, code := cli(t, nil, "keys", "--admin-socket", d.admin)
	if code != 0 {
		t.Fatalf("keyturn keys: %s", errs)
	}
	behind := ""
	for line := range strings.Lines(table) {
		if strings.Contains(line, "standby") {
			behind = line
		}
	}
	wants(t, behind, url, "not before it is published")
	if strings.Contains(behind, "endpoint") || strings.Contains(behind, "file") {
		t.Errorf("targets that are not behind are named:\n%s", behind)
	}
	out, _, _ := cli(t, nil, "keys", "-o", "json", "--admin-socket", d.admin)
	var keys []api.Key
	must(t, json.Unmarshal([]byte(out), &keys))
	for _, k := range keys {
		if (k.State == "standby") != (fmt.Sprint(k.WaitingFor) == "["+url+"]") {
			t.Errorf("%s key %s waits for %v", k.State, k.Kid, k.WaitingFor)
		}
	}
	status, _, code := cli(t, nil, "status", "--admin-socket", d.admin)
	if code != 0 {
		t.Errorf("keyturn status: exit code %d, and the public set is good:\n%s", code, status)
	}
	wants(t, status, "ready, degraded", "rotation_overdue", "confirm_behind", url)
	_, errs, code = cli(t, nil, "rotate", "web", "--yes", "--admin-socket", d.admin)
	if code != 1 {
		t.Errorf("keyturn rotate: exit code %d, want 1", code)
	}
	wants(t, errs, "not_safe_yet", url)
	if n := d.metric(`keyturn_rotation_overdue{issuer="main",ring="web"} 1`); n == "" {
		t.Errorf("metrics: %s", d.metric("keyturn_rotation_overdue"))
	}
}
