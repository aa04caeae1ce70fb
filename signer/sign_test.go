package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

func TestTokenOfEveryAlgorithm(t *testing.T) {
	w := newWorld(t, keyring.Algorithms()...).start().ready()
	for _, alg := range keyring.Algorithms() {
		before := time.Now()
		resp := w.mustSign("p-" + string(alg))
		v := w.verify(resp.Token)
		if v.Header.Alg != string(alg) || v.Header.Kid != resp.Kid || v.Header.Typ != "JWT" {
			t.Errorf("%s: header %+v", alg, v.Header)
		}
		if resp.Kid != w.Snap.Active(string(alg)).JWK.Kid {
			t.Errorf("%s: signed by %q, which is not active", alg, resp.Kid)
		}
		c := v.Claims
		if got := c.IssuedAt; got != c.NotBefore || got.Before(before.Add(-11*time.Second)) || got.After(time.Now().Add(-9*time.Second)) {
			t.Errorf("%s: iat %s, nbf %s; both are now - E", alg, c.IssuedAt, c.NotBefore)
		}
		if !c.ExpiresAt.Equal(resp.ExpiresAt) || resp.ExpiresIn != 300 || c.ExpiresAt.Sub(c.IssuedAt).Round(5*time.Second) != 310*time.Second {
			t.Errorf("%s: exp %s, answer %+v", alg, c.ExpiresAt, resp)
		}
		if id, err := base64.RawURLEncoding.DecodeString(c.ID); err != nil || len(id) != 16 {
			t.Errorf("%s: jti %q is not 128 bits", alg, c.ID)
		}
	}
}

// The whole payload, byte by byte: what keyturn writes, then the rest sorted.
func TestClaimsPassFaithfully(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		w.cfg.Profiles[0].Claims.Add = []request.Claim{{Name: "env", Value: json.RawMessage(`"prod"`)}}
		w.start()
		synctest.Wait()
		resp, prob := w.ask(`{"profile":"p-ES256","subject":"a<b","audience":"x","ttl_seconds":60,
			"claims":{"z":1.0,"big":12345678901234567890123,"html":"<&>","a":{"y": [1, 2],"x":null}}}`)
		if prob != nil {
			t.Fatal(prob)
		}
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(resp.Token, ".")[1])
		if err != nil {
			t.Fatal(err)
		}
		v := w.verify(resp.Token)
		now := time.Now().Unix()
		want := fmt.Sprintf(`{"iss":"https://tokens.example.com","sub":"a\u003cb","aud":["x"],"exp":%d,"nbf":%d,"iat":%d,"jti":%q,`+
			`"a":{"y": [1, 2],"x":null},"big":12345678901234567890123,"env":"prod","html":"<&>","z":1.0}`, now+60, now-10, now-10, v.Claims.ID)
		if string(payload) != want {
			t.Errorf("payload\n%s\nwant\n%s", payload, want)
		}
		digest := sha256.Sum256(payload)
		rec := w.rec.all()[0]
		if rec.Time.IsZero() {
			t.Error("record without a time")
		}
		rec.Time = time.Time{}
		if diff := cmp.Diff(audit.Record{
			Event: audit.EventSign, Decision: audit.Allow, Socket: "default", UID: 1000, GID: 1000, PID: 42,
			Profile: "p-ES256", Issuer: "main", Ring: "ES256", Kid: resp.Kid, JTI: v.Claims.ID, Subject: "a<b",
			Audiences: []string{"x"}, ExpiresAt: resp.ExpiresAt, ClaimsSHA256: hex.EncodeToString(digest[:]),
		}, rec); diff != "" {
			t.Errorf("record (-want +got):\n%s", diff)
		}
	})
}

func TestJTIsDiffer(t *testing.T) {
	w := newWorld(t, keyring.EdDSA).start().ready()
	seen := map[string]bool{}
	for range 200 {
		id := w.verify(w.mustSign("p-EdDSA").Token).Claims.ID
		if seen[id] {
			t.Fatalf("jti %q twice", id)
		}
		seen[id] = true
	}
}

func TestSubjectsAndAudiences(t *testing.T) {
	w := refusingWorld(t).start().ready()
	for body, want := range map[string][2]string{
		`{"profile":"fixed"}`: {"service", "api://orders"},
		`{"profile":"any","subject":"Zoë van 東京","audience":"the b","claims":{"given name é":1}}`: {"Zoë van 東京", "the b"},
		`{"profile":"fixed","subject":"service","audience":["x","y"]}`:                            {"service", "x y"},
		`{"profile":"peer"}`: {"uid:1000", "api://orders"},
		`{"profile":"orders","subject":"user-7","claims":{"tenant":"a"}}`:                                             {"user-7", "api://orders"},
		`{"profile":"two","subject":"u","audience":"b"}`:                                                              {"u", "b"},
		`{"profile":"any","subject":"u","audience":"z"}`:                                                              {"u", "z"},
		`{"profile":"orders","subject":"user-7","claims":{"tenant":"a"},"audience":[],"ttl_seconds":1800}`:            {"user-7", "api://orders"},
		`{"profile":"access","subject":"u","claims":{"client_id":"app"},"audience":["api://orders"],"ttl_seconds":1}`: {"u", "api://orders"},
	} {
		resp, prob := w.ask(body)
		if prob != nil {
			t.Errorf("%s: %v", body, prob)
			continue
		}
		c := w.verify(resp.Token).Claims
		if got := [2]string{c.Subject, strings.Join(c.Audience, " ")}; got != want {
			t.Errorf("%s: sub and aud %q, want %q", body, got, want)
		}
	}
}

func TestUnknownGroupMakesNoSubject(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	w.cfg.Profiles[0].Subject = profile.Subject{FromPeer: "u{uid}-g{gid}"}
	w.start().ready()
	c := alice
	c.Peer.GID = unixsock.Overflow
	_, prob := w.s.answer(t.Context(), c, []byte(`{"profile":"p-ES256"}`))
	w.wantCode(prob, api.InvalidRequest, "gid")
	resp, prob := w.ask(`{"profile":"p-ES256"}`)
	if prob != nil || w.verify(resp.Token).Claims.Subject != "u1000-g1000" {
		t.Errorf("%+v, %v", resp, prob)
	}
}

// A lease ends by the later of the two clocks: setting the wall clock back
// gives no time.
func TestLeaseEndsByTheLaterClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		var ahead atomic.Int64
		w.cfg.Late = func(issuer string) time.Time {
			if issuer != "main" {
				t.Errorf("asked for issuer %q", issuer)
			}
			return time.Now().Add(time.Duration(ahead.Load()))
		}
		w.start()
		synctest.Wait()
		left := time.Until(w.Snap.Lease)
		ahead.Store(int64(left - time.Second))
		w.mustSign("p-ES256")
		ahead.Store(int64(left))
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "boot clock")
		ready := w.s.Ready(time.Now())
		if len(ready) != 1 || ready[0].Code != "signing_lapsed" || !strings.Contains(ready[0].Message, "check NTP") {
			t.Errorf("ready: %+v", ready)
		}
		// Between the first look and the release the clocks are read again.
		ahead.Store(0)
		w.rec.mu.Lock()
		w.rec.before = func() error { ahead.Store(int64(left)); return nil }
		w.rec.mu.Unlock()
		_, prob = w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "boot clock")
	})
}

// A signature, or a record, that takes longer than the lease releases nothing.
func TestLapsedBeforeRelease(t *testing.T) {
	for _, slow := range []string{"signature", "audit"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				nap := func() error { time.Sleep(10 * time.Hour); return nil }
				kid := w.Snap.Keys[0].JWK.Kid
				if slow == "signature" {
					w.Source.Halfs[kid] = keystest.Half{Key: w.Source.Halfs[kid].(keystest.Half).Key, Before: nap}
				} else {
					w.rec.before = nap
				}
				w.start()
				synctest.Wait()
				resp, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
				if resp != nil {
					t.Error("a token was released after the lease")
				}
				w.wantCode(prob, api.SigningLapsed, "ended at")
				recs := w.rec.all()
				last := recs[len(recs)-1]
				if slow == "signature" && len(recs) != 1 {
					t.Errorf("%d records: the log allows what was never to be released", len(recs))
				}
				if last.Decision != audit.Deny || last.Code != "signing_lapsed" || last.JTI == "" {
					t.Errorf("last record %+v, want the denial with its jti", last)
				}
			})
		})
	}
}

func TestAuditFailsClosed(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	w.rec.breakWith(errDisk)
	for _, body := range []string{`{"profile":"p-ES256","subject":"u"}`, `{"profile":"nope"}`} {
		resp, prob := w.ask(body)
		if resp != nil {
			t.Errorf("%s: a token without a record", body)
		}
		w.wantCode(prob, api.Unavailable, "audit log")
		if strings.Contains(prob.Detail, errDisk.Error()) {
			t.Error("the caller learns of the daemon's disk")
		}
	}
	if got := w.s.Ready(time.Now()); len(got) != 1 || got[0].Code != "audit_failed" {
		t.Errorf("Ready = %+v", got)
	}
	if n := strings.Count(w.log.String(), "audit log not written"); n != 1 {
		t.Errorf("%d log lines for one cause", n)
	}
	w.rec.breakWith(nil)
	w.mustSign("p-ES256")
	w.ready()
}

func TestAuditOptional(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	w.cfg.AuditOptional = true
	w.start().ready()
	w.rec.breakWith(errDisk)
	w.mustSign("p-ES256")
	if got := w.s.Alarms(time.Now()); len(got) != 1 || got[0].Code != "audit_failed" || got[0].Fatal {
		t.Errorf("Alarms = %+v", got)
	}
	if _, err := New(Config{Keys: w.Source}); err == nil {
		t.Error("New takes no audit log although one is required")
	}
}

func TestSignatureFails(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	kid := w.Snap.Keys[0].JWK.Kid
	w.Source.Halfs[kid] = keystest.Half{Key: w.Source.Halfs[kid].(keystest.Half).Key, Before: func() error { return errors.New("hsm on fire") }}
	w.start().ready()
	_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
	w.wantCode(prob, api.Unavailable, "signature failed")
	if strings.Contains(prob.Detail, "fire") || !strings.Contains(w.log.String(), "hsm on fire") {
		t.Errorf("the reason belongs into the log alone: %v", prob)
	}
}

func TestObserve(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	var got []Outcome
	w.cfg.Observe = func(o Outcome) {
		if o.Took <= 0 {
			t.Error("an outcome without its time")
		}
		o.Took = 0
		got = append(got, o)
	}
	w.start().ready()
	w.mustSign("p-ES256")
	w.ask(`{"profile":"nope"}`)
	w.ask(`{"profile":"p-ES256","subject":"u","ttl_seconds":0}`)
	want := []Outcome{
		{Issuer: "main", Ring: "ES256", Profile: "p-ES256", Algorithm: "ES256"},
		{Code: api.Forbidden},
		{Issuer: "main", Ring: "ES256", Profile: "p-ES256", Code: api.InvalidRequest},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// No private half, in any encoding, gets anywhere: log, audit, alarms, answers, printed values.
func TestRedaction(t *testing.T) {
	w := newWorld(t, keyring.ES256, keyring.RS256)
	canary := w.Source.Halfs[w.Snap.Keys[0].JWK.Kid].(keystest.Half).Key.(*ecdsa.PrivateKey)
	other := keystest.NewHalf(t, keyring.ES256) // does not match: a fault that is talked about
	w.Source.Halfs[w.Snap.Keys[1].JWK.Kid] = other
	w.start()
	w.eventually("loaded", func() bool { return len(w.Source.Tries()) == 2 })
	w.eventually("alarmed", func() bool { return len(w.s.Alarms(time.Now())) == 2 })
	resp := w.mustSign("p-ES256")
	views := w.s.keys.Views()
	key, _ := views["main"].Pick("ES256", time.Now())
	out := fmt.Sprintf("%v %+v %#v %v %+v %#v", resp, views, views["main"], key, key, key)
	out += w.log.String() + fmt.Sprint(w.rec.all(), w.s.Alarms(time.Now()))
	for _, key := range []*ecdsa.PrivateKey{canary, other.(*ecdsa.PrivateKey)} {
		for _, secret := range append(keystest.Spellings(t, key), keystest.Canary) {
			if strings.Contains(out, secret) {
				t.Errorf("the private half is in the output as %q", secret)
			}
		}
	}
}

func TestProfileList(t *testing.T) {
	w := refusingWorld(t)
	w.start().ready()
	var names []string
	for name, p := range *w.s.profiles.Load() {
		if p.Allows(alice) {
			names = append(names, name)
		}
	}
	if slices.Contains(names, "root") || !slices.Contains(names, "orders") {
		t.Errorf("alice may use %q", names)
	}
}

var _ crypto.Signer = keystest.Half{}
