package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// TestRevocationWithOneCutOff is invariant I8, measured: three replicas, one of
// which cannot reach Vault when a key is revoked. The others sign with the next
// key and show the revoked one no more; the one that is cut off signs on, and
// ends by the times that were told. Then it comes back.
func TestRevocationWithOneCutOff(t *testing.T) {
	t.Parallel()
	proxy := vaulttest.NewProxy(t, sharedVault(t).URL())
	sites, daemons := threeReplicas(t, proxy)
	root := newSecrets(sites[0], "main")
	bad, next := daemons[0].mustToken("web"), provenEverywhere(t, daemons)
	watches := make([]*watch, 3)
	for i, d := range daemons {
		watches[i] = startWatch(t, d, sites[i].path("jwks.json"), bad.Kid)
	}
	for _, w := range watches {
		within(t, 30*time.Second, "the key is in use", w.sees)
	}

	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.DropRequest })
	var done api.RevokeResponse
	since := time.Now()
	must(t, daemons[0].order("/v1/keys/"+bad.Kid+"/revoke", api.RevokeRequest{Reason: "drill"}, &done))
	answered := time.Now()
	if done.CutOff == nil || done.CutOff.SignUntil.Before(since) || !done.CutOff.ServeUntil.After(done.CutOff.SignUntil) || successor(t, done).Kid != next.Kid {
		t.Fatalf("exposure %+v", done)
	}
	within(t, 30*time.Second, "the half is destroyed", func() error {
		if !root.isGone(bad.Kid) {
			return errors.New("it is there")
		}
		return nil
	})
	t.Logf("the half was gone from Vault, metadata included, %s after the order", time.Since(since).Round(time.Millisecond))
	othersGoOn(t, daemons, bad.Kid, next.Kid)
	within(t, time.Until(done.CutOff.ServeUntil)+10*time.Second, "the cut-off replica serves nothing", func() error { return watches[2].ended() })

	for i, w := range watches {
		w.end()
		t.Logf("replica %d: signed with the revoked key until %s after the order, endpoint until %s, file until %s",
			i, w.signed.Sub(since).Round(time.Millisecond), w.served.Sub(since).Round(time.Millisecond), w.filed.Sub(since).Round(time.Millisecond))
	}
	t.Logf("told: the cut-off one signs until %s, serves until %s", done.CutOff.SignUntil.Sub(since).Round(time.Millisecond), done.CutOff.ServeUntil.Sub(since).Round(time.Millisecond))
	watches[0].stoppedBy(t, "the replica that was asked", answered, answered.Add(2*time.Second))
	connected := since.Add(2*500*time.Millisecond + 3*time.Second) // two synchronisations, on a loaded machine
	watches[1].stoppedBy(t, "the other one that reaches Vault", connected, connected)
	watches[2].stoppedBy(t, "the one that is cut off", done.CutOff.SignUntil, done.CutOff.ServeUntil)
	if watches[2].signed.Before(since.Add(time.Second)) {
		t.Error("the cut-off replica stopped signing at once: it was not cut off, or gave up its lease")
	}
	daemons[2].logged(10*time.Second, `"codes":["signing_lapsed"`)
	comesBack(t, proxy, daemons[2], bad.Kid, next.Kid)
}

// threeReplicas share a mount; the last one reaches Vault through the proxy. S is
// 12.125s, the lead 15.125s, and the lease is renewed to 5.625s.
func threeReplicas(t *testing.T, proxy *vaulttest.Proxy) (sites []*vaultSite, daemons []*daemon) {
	t.Helper()
	server := sharedVault(t)
	mount := server.Mount(t)
	for i := range 3 {
		s := newVaultSite(t, server, mount, "all")
		s.edit("outage_budget: 10s", "outage_budget: 5s").edit("max_token_ttl: 5s", "max_token_ttl: 3s").edit("@every 28s", "@every 1h")
		if i > 0 {
			s.edit("url: http://"+s.public, "url: http://"+sites[0].public)
		}
		if i == 2 {
			s.edit("address: "+server.URL(), "address: "+proxy.URL)
		}
		sites, daemons = append(sites, s), append(daemons, s.start("web"))
	}
	return sites, daemons
}

// provenEverywhere waits until the standby may sign, and all know that.
func provenEverywhere(t *testing.T, daemons []*daemon) api.Key {
	t.Helper()
	next := daemons[0].standby(60*time.Second, "web")
	within(t, 30*time.Second, "all know the standby", func() error {
		for i, d := range daemons {
			if k, _ := d.key("web", "standby"); k.Kid != next.Kid {
				return fmt.Errorf("replica %d has %s", i, k.Kid)
			}
		}
		return nil
	})
	return next
}

// othersGoOn: what the cut-off replica signs dies with the copies of another,
// which signs with the next key, and the cut-off one has that in its set.
func othersGoOn(t *testing.T, daemons []*daemon, bad, next string) {
	t.Helper()
	late := lateToken(t, daemons[2], bad)
	within(t, 30*time.Second, "a token that the cut-off replica signs dies", func() error {
		if verifyWith(daemons[1].jwksURL(), late.Token, "demo") == nil {
			return errors.New("it verifies with a fresh copy of another replica")
		}
		return nil
	})
	var tok api.SignResponse
	within(t, 30*time.Second, "the other one signs with the next key", func() error {
		if tok = daemons[1].mustToken("web"); tok.Kid != next {
			return fmt.Errorf("%s signs", tok.Kid)
		}
		return nil
	})
	if err := verifyWith(daemons[2].jwksURL(), tok.Token, "demo"); err != nil {
		t.Errorf("the next key's token with the set of the cut-off replica: %v", err)
	}
}

// lateToken is one that a replica signs with a key that is revoked elsewhere.
func lateToken(t *testing.T, d *daemon, kid string) api.SignResponse {
	t.Helper()
	tok := d.mustToken("web")
	if tok.Kid != kid {
		t.Fatalf("the cut-off replica signs with %s, not with %s", tok.Kid, kid)
	}
	return tok
}

// comesBack: what a replica missed holds as soon as it reads Vault again.
func comesBack(t *testing.T, proxy *vaulttest.Proxy, d *daemon, bad, next string) {
	t.Helper()
	proxy.Decide(func(*http.Request) vaulttest.Fault { return vaulttest.Pass })
	within(t, time.Minute, "the replica that was cut off is back", func() error {
		tok, err := d.token(ask("web"))
		switch {
		case err == nil && tok.Kid == bad:
			t.Fatal("it signs with the revoked key again")
		case err == nil && tok.Kid != next:
			err = fmt.Errorf("%s signs", tok.Kid)
		case err == nil:
			err = verifyWith(d.jwksURL(), tok.Token, "demo")
		}
		return err
	})
	if len(copyOf(t, d.jwksURL()).Key(bad)) > 0 {
		t.Error("it serves the revoked key again")
	}
}

// watch asks one replica all the time whether it still signs with a key, and
// shows it.
type watch struct {
	kid   string
	stop  chan struct{}
	asked sync.WaitGroup

	mu                    sync.Mutex
	signed, served, filed time.Time // the last time that it did, as it was asked
	status                int       // of the endpoint
	file                  error     // of reading the file
}

func startWatch(t *testing.T, d *daemon, file, kid string) *watch {
	w := &watch{kid: kid, stop: make(chan struct{})}
	note := func(at *time.Time, yes bool, asked time.Time, more func()) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if yes {
			*at = asked
		}
		more()
	}
	every := func(do func(asked time.Time)) {
		w.asked.Go(func() {
			for {
				select {
				case <-w.stop:
					return
				case <-time.After(25 * time.Millisecond):
					do(time.Now())
				}
			}
		})
	}
	every(func(asked time.Time) {
		tok, err := d.token(ask("web"))
		note(&w.signed, err == nil && tok.Kid == kid, asked, func() {})
	})
	every(func(asked time.Time) {
		status, holds := shows(d.jwksURL(), kid)
		note(&w.served, holds, asked, func() { w.status = status })
	})
	every(func(asked time.Time) {
		doc, err := os.ReadFile(file)
		var set jose.JSONWebKeySet
		holds := err == nil && json.Unmarshal(doc, &set) == nil && len(set.Key(kid)) > 0
		note(&w.filed, holds, asked, func() { w.file = err })
	})
	t.Cleanup(w.end)
	return w
}

// shows reports an endpoint's status, and whether its set has a key.
func shows(url, kid string) (status int, holds bool) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	var set jose.JSONWebKeySet
	return resp.StatusCode, resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&set) == nil && len(set.Key(kid)) > 0
}

// end stops asking, once.
func (w *watch) end() {
	w.mu.Lock()
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	w.mu.Unlock()
	w.asked.Wait()
}

// sees reports whether the key is in use everywhere.
func (w *watch) sees() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.signed.IsZero() || w.served.IsZero() || w.filed.IsZero() {
		return fmt.Errorf("signed %s, served %s, in the file %s", w.signed, w.served, w.filed)
	}
	return nil
}

// ended reports whether endpoint and file are out of service.
func (w *watch) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.status != http.StatusServiceUnavailable || !errors.Is(w.file, fs.ErrNotExist) {
		return fmt.Errorf("the endpoint answers %d, reading the file gives %v", w.status, w.file)
	}
	return nil
}

// stoppedBy wants the key out of use by a time, and out of sight by another.
// What was asked for before may have been answered after.
func (w *watch) stoppedBy(t *testing.T, who string, signs, shown time.Time) {
	t.Helper()
	if w.signed.After(signs) {
		t.Errorf("%s signed with the revoked key %s after it should have stopped", who, w.signed.Sub(signs))
	}
	for what, at := range map[string]time.Time{"endpoint": w.served, "file": w.filed} {
		if at.After(shown) {
			t.Errorf("%s showed the revoked key in its %s %s after it should have stopped", who, what, at.Sub(shown))
		}
	}
}
