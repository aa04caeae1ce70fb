package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
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
		if resp.Kid != w.snap.Active(string(alg)).JWK.Kid {
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
		w.cfg.Profiles[0].Claims.Add = []Claim{{"env", json.RawMessage(`"prod"`)}}
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
	w.cfg.Profiles[0].Subject = Subject{FromPeer: "u{uid}-g{gid}"}
	w.start().ready()
	c := alice
	c.peer.GID = unixsock.Overflow
	_, prob := w.s.answer(t.Context(), c, []byte(`{"profile":"p-ES256"}`))
	w.wantCode(prob, api.InvalidRequest, "gid")
	resp, prob := w.ask(`{"profile":"p-ES256"}`)
	if prob != nil || w.verify(resp.Token).Claims.Subject != "u1000-g1000" {
		t.Errorf("%+v, %v", resp, prob)
	}
}

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256).start()
		synctest.Wait()
		w.mustSign("p-ES256")
		time.Sleep(9*time.Hour - time.Nanosecond)
		w.mustSign("p-ES256")
		time.Sleep(time.Nanosecond)
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "ended at")
		if got := w.s.Ready(time.Now()); len(got) != 1 || got[0].Code != "signing_lapsed" || got[0].Since != w.snap.Lease {
			t.Errorf("Ready = %+v", got)
		}
		w.change(func(s *keyring.Snapshot) { s.Lease = time.Now().Add(9 * time.Hour) })
		w.mustSign("p-ES256")

		// B + R + sync_interval + E is as far as right clocks can set it.
		w.change(func(s *keyring.Snapshot) { s.Lease = time.Now().Add(9*time.Hour + 20*time.Second) })
		w.mustSign("p-ES256")
		w.change(func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(time.Nanosecond) })
		_, prob = w.ask(`{"profile":"p-ES256","subject":"u"}`)
		w.wantCode(prob, api.SigningLapsed, "clock fault")
	})
}

// A signature, or a record, that takes longer than the lease releases nothing.
func TestLapsedBeforeRelease(t *testing.T) {
	for _, slow := range []string{"signature", "audit"} {
		t.Run(slow, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				nap := func() error { time.Sleep(10 * time.Hour); return nil }
				kid := w.snap.Keys[0].JWK.Kid
				if slow == "signature" {
					w.keys.halfs[kid] = half{w.keys.halfs[kid].(half).key, nap}
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
	if _, err := New(Config{Keys: w.keys}); err == nil {
		t.Error("New takes no audit log although one is required")
	}
}

func TestSignatureFails(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	kid := w.snap.Keys[0].JWK.Kid
	w.keys.halfs[kid] = half{w.keys.halfs[kid].(half).key, func() error { return errors.New("hsm on fire") }}
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
	canary := w.keys.halfs[w.snap.Keys[0].JWK.Kid].(half).key.(*ecdsa.PrivateKey)
	other := newHalf(t, keyring.ES256) // does not match: a fault that is talked about
	w.keys.halfs[w.snap.Keys[1].JWK.Kid] = other
	w.start()
	w.eventually("loaded", func() bool { return len(w.keys.tries()) == 2 })
	w.eventually("alarmed", func() bool { return len(w.s.Alarms(time.Now())) == 2 })
	resp := w.mustSign("p-ES256")
	out := fmt.Sprintf("%v %+v %#v", resp, w.s.state.Load(), w.s.issuers["main"].loaded)
	for _, v := range w.s.state.Load().issuers["main"].rings {
		out += fmt.Sprintf("%v %+v %#v", v, v, v)
	}
	out += w.log.String() + fmt.Sprint(w.rec.all(), w.s.Alarms(time.Now()))
	for _, key := range []*ecdsa.PrivateKey{canary, other.(*ecdsa.PrivateKey)} {
		for _, secret := range spellings(t, key) {
			if strings.Contains(out, secret) {
				t.Errorf("the private half is in the output as %q", secret)
			}
		}
	}
}

// spellings are the ways in which a private half could be printed.
func spellings(t *testing.T, key *ecdsa.PrivateKey) []string {
	t.Helper()
	raw, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	n := new(big.Int).SetBytes(raw)
	var words []string
	for _, w := range n.Bits() {
		words = append(words, fmt.Sprintf("%#x", uint(w)), fmt.Sprint(uint(w)))
	}
	return append(words, n.String(), n.Text(16), hex.EncodeToString(der), string(raw), base64.StdEncoding.EncodeToString(raw),
		base64.RawURLEncoding.EncodeToString(raw), fmt.Sprint(raw), base64.StdEncoding.EncodeToString(der))
}

func TestProfileList(t *testing.T) {
	w := refusingWorld(t)
	w.start().ready()
	var names []string
	for name, p := range w.s.state.Load().profiles {
		if p.allows(alice) {
			names = append(names, name)
		}
	}
	if slices.Contains(names, "root") || !slices.Contains(names, "orders") {
		t.Errorf("alice may use %q", names)
	}
}

var _ crypto.Signer = half{}
