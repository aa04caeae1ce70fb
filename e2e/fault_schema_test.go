package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestFaultSchema: a newer keyturn rewrites the manifest. This one writes
// nothing any more, signs to the end of the lease and no longer, and serves the
// set to the end of its tail; where the newer one is undone it goes on, and
// loses nothing of what it does not know.
func TestFaultSchema(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := newVaultSite(t, server, server.Mount(t), "all")
	d := s.start("web")
	d.reason(15*time.Second, "ok", "", "")
	tr := startTraffic(&traffic{t: t, endpoints: []string{d.jwksURL()}, callers: []caller{{"web", d, ask("web")}}, cache: vaultCache})
	kid := tr.signer("web")
	tr.warm(30)

	doc, version := s.rewritten(map[string]string{"schema": "2", "future": future, "write_id": `"of-a-newer-keyturn"`})
	d.reason(10*time.Second, "degraded", "manifest_schema", "")
	d.alarmed("manifest_schema", true)
	tr.without(func() { tr.callers = nil }) // signing ends now, and that is right
	lease := leaseOf(t, doc)
	last := d.signsUntil(t, lease)
	if last.Kid != kid {
		t.Errorf("%s signed last, %s before", last.Kid, kid)
	}
	d.alarmed("signing_lapsed", true)
	// Its endpoint serves for as long as that token may be in use.
	if err := verifyWith(d.jwksURL(), last.Token, "demo"); err != nil {
		t.Errorf("the last token: %v", err)
	}
	tr.without(func() { tr.endpoints = nil })
	d.servesUntil(t, lease.Add(vaultTail), s.path("jwks.json"))
	now, at, err := s.document("main", 0)
	must(t, err)
	if at != version || string(now["future"]) != future {
		t.Errorf("the newer one wrote version %d, and there is %d, with %s", version, at, now["future"])
	}

	s.rewritten(map[string]string{"schema": "1", "write_id": `"back-again"`})
	d.canSign(20*time.Second, "web")
	within(t, 20*time.Second, "writes of its own", func() error {
		now, at, err := s.document("main", 0)
		must(t, err)
		if at < version+2 {
			return fmt.Errorf("version %d", at)
		}
		if !sameJSON(now["future"], future) {
			t.Fatalf("what a newer one wrote is now %s", now["future"])
		}
		return nil
	})
	d.reason(15*time.Second, "ok", "", "")
	d.alarmed("manifest_schema", false)
}

// warm waits until so many tokens have been signed and verified.
func (tr *traffic) warm(n int) {
	tr.t.Helper()
	within(tr.t, 30*time.Second, "tokens", func() (err error) {
		tr.without(func() {
			if tr.signed < n {
				err = fmt.Errorf("%d tokens", tr.signed)
			}
		})
		return err
	})
}

// rewritten replaces members of the manifest as the next generation, and
// returns what it wrote and as which version. Whoever is faster writes first.
func (s *vaultSite) rewritten(members map[string]string) (map[string]json.RawMessage, int) {
	s.t.Helper()
	var doc map[string]json.RawMessage
	var version int
	within(s.t, 10*time.Second, "a write of the manifest", func() error {
		var err error
		if doc, version, err = s.document("main", 0); err != nil {
			return err
		}
		for name, value := range members {
			doc[name] = json.RawMessage(value)
		}
		doc["generation"] = json.RawMessage(fmt.Sprint(version + 1))
		return s.overwrite("main", doc, version)
	})
	return doc, version + 1
}

func leaseOf(t *testing.T, doc map[string]json.RawMessage) time.Time {
	t.Helper()
	var lease time.Time
	must(t, json.Unmarshal(doc["lease"], &lease))
	return lease
}

// vaultTail is max_token_ttl + clock_skew + leeway of vaultFile.
const vaultTail = 7 * time.Second

// signedAt is the second in which a token of vaultFile's site was signed: iat
// is clock_skew behind.
func signedAt(token string) time.Time {
	return time.Unix(int64(claimsOf(token)["iat"].(float64)), 0).Add(time.Second)
}

// signsUntil asks for tokens until a lease has passed, and returns the last:
// there is one in its last seconds, none later, and then an answer that says
// why.
func (d *daemon) signsUntil(t *testing.T, lease time.Time) api.SignResponse {
	t.Helper()
	var last api.SignResponse
	for time.Now().Before(lease.Add(3 * time.Second)) {
		asked := time.Now()
		tok, err := d.token(ask("web"))
		switch {
		case err == nil && (asked.After(lease) || signedAt(tok.Token).After(lease)):
			t.Fatalf("a token was signed at %s, asked for at %s, and the lease ended at %s", signedAt(tok.Token), asked, lease)
		case err == nil:
			last = tok
		case time.Now().Before(lease):
			t.Fatalf("%s before the end of the lease: %v", time.Until(lease), err)
		default:
			var p *api.Problem
			if !errors.As(err, &p) || p.Code != api.SigningLapsed || p.Status != http.StatusServiceUnavailable {
				t.Fatalf("after the lease: %v", err)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	if last.Token == "" || signedAt(last.Token).Before(lease.Add(-2*time.Second)) {
		t.Errorf("the last token was signed at %s, and the lease ended at %s", signedAt(last.Token), lease)
	}
	if status, h, err := d.health("/readyz/signer"); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("/readyz/signer after the lease: status %d, %+v, %v", status, h, err)
	}
	return last
}

// servesUntil wants the set at the endpoint and in the file until a time, and
// then a 503 and no file; it takes the daemon's health with it, and not the
// daemon.
func (d *daemon) servesUntil(t *testing.T, until time.Time, file string) {
	t.Helper()
	for time.Now().Before(until.Add(3 * time.Second)) {
		asked := time.Now()
		status := getStatus(t, d.jwksURL())
		answered := time.Now()
		if asked.After(until) && status != http.StatusServiceUnavailable || answered.Before(until) && status != http.StatusOK {
			t.Fatalf("status %d between %s and %s; the set may be served until %s", status, asked, answered, until)
		}
		_, err := os.Stat(file)
		if time.Now().Before(until) && err != nil {
			t.Fatalf("the file is gone %s before its time: %v", time.Until(until), err)
		}
		// The file goes with the publisher's next look.
		if asked.After(until.Add(2*time.Second)) && !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the file is there %s after its time: %v", asked.Sub(until), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.reason(5*time.Second, "unavailable", "serve_expired", "")
	d.alarmed("serve_expired", true)
	if status, h, err := d.health("/livez"); err != nil || status != http.StatusOK {
		t.Errorf("/livez: status %d, %+v, %v", status, h, err)
	}
}
