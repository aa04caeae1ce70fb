package signer

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
)

// withdrawals are the ways in which a key that has signed may sign no longer,
// or for a shorter time, with what its tokens are refused by then.
var withdrawals = map[string]struct {
	change func(s *keyring.Snapshot)
	code   api.Code
	text   string
}{
	"revoked": {func(s *keyring.Snapshot) { s.Keys[0].Revoked = time.Now() }, api.NoActiveKey, "is revoked"},
	"closed": {func(s *keyring.Snapshot) {
		s.Keys[0].Retired, s.Keys[0].SignUntil, s.Keys[0].Closed = time.Now(), time.Now().Add(time.Hour), time.Now()
	}, api.NoActiveKey, "is closed"},
	"gone":            {func(s *keyring.Snapshot) { s.Keys = nil }, api.NoActiveKey, "no longer"},
	"lease shortened": {func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(-time.Hour) }, api.SigningLapsed, "was shortened"},
	"lease ended":     {func(s *keyring.Snapshot) { s.Lease = time.Now() }, api.SigningLapsed, "was shortened"},
	"retired at once": {func(s *keyring.Snapshot) { s.Keys[0].Retired, s.Keys[0].SignUntil = time.Now(), time.Now() }, api.SigningLapsed, "was shortened"},
}

// on runs f within the n-th time that records are kept from now on.
func (r *recorder) on(n int, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.before = func() error {
		if n--; n == 0 {
			f()
		}
		return nil
	}
}

// What was accepted while a token was signed, or its record written, counts:
// nobody gets a token of a key that had been revoked by then.
func TestWithdrawnBeforeRelease(t *testing.T) {
	for name, tc := range withdrawals {
		for _, when := range []string{"signature", "record"} {
			t.Run(name+" during the "+when, func(t *testing.T) {
				w := newWorld(t, keyring.ES256)
				kid := w.Snap.Keys[0].JWK.Kid
				change := func() { w.Change(tc.change) }
				if when == "record" {
					w.rec.on(1, change)
				} else {
					once := change
					w.Source.Halfs[kid] = keystest.Half{Key: w.Source.Halfs[kid].(keystest.Half).Key, Before: func() error {
						once()
						once = func() {}
						return nil
					}}
				}
				w.start().ready()
				resp, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
				if resp != nil {
					t.Fatal("the token was released")
				}
				w.wantCode(prob, tc.code, tc.text)
				recs := w.rec.all()
				last := recs[len(recs)-1]
				if last.Decision != audit.Deny || last.Code != string(tc.code) || last.JTI == "" || last.Kid != kid {
					t.Errorf("last record %+v, want the denial with its jti", last)
				}
				if when == "signature" && len(recs) != 1 || when == "record" && recs[0].JTI != last.JTI {
					t.Errorf("records %+v", recs)
				}
			})
		}
	}
}

// A rotation takes nothing from the tokens that the key before has signed.
func TestRotatedBeforeRelease(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	next := w.AddStandby(keyring.ES256).JWK.Kid
	w.rec.on(1, func() {
		w.Promote(next)
		w.Change(func(s *keyring.Snapshot) { s.Lease = s.Lease.Add(10 * time.Second) })
	})
	if _, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`); prob != nil {
		t.Error(prob)
	}
}

// A batch is released as a whole: when a key of some of its tokens is revoked
// before that, none goes out, and the log says so of each that it had allowed.
func TestWithdrawnWithinABatch(t *testing.T) {
	const size, body = 200, `{"profile":"p-ES256","subject":"u"}`
	batch := `{"requests":[` + strings.Repeat(body+",", size-1) + body + `]}`
	for name, tc := range withdrawals {
		for _, chunk := range []int{2, 4} { // the last one: only the last look finds it
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, keyring.ES256).start().ready()
				w.rec.on(chunk, func() { w.Change(tc.change) })
				got := w.post(t.Context(), 1000, "/v1/sign/batch", strings.NewReader(batch))
				if got.Code != http.StatusServiceUnavailable || decode[api.Problem](t, got.Body.Bytes()).Code != tc.code {
					t.Fatalf("%d %.200s", got.Code, got.Body)
				}
				if got.Header().Get("Retry-After") == "" {
					t.Error("it does not say when to ask again")
				}
				said := map[string]audit.Decision{} // the last word on each token
				for _, r := range w.rec.all() {
					if r.JTI != "" {
						said[r.JTI] = r.Decision
					}
				}
				if least := 64 * chunk; len(said) < min(least, size) {
					t.Errorf("%d tokens are on record", len(said))
				}
				for jti, decision := range said {
					if decision != audit.Deny {
						t.Fatalf("%s: the log allows what nobody got", jti)
					}
				}
			})
		}
	}
}

// Each key of a batch is looked at, also where several sign by one issuer.
func TestWithdrawnAmongOthers(t *testing.T) {
	w := newWorld(t, keyring.ES256, keyring.EdDSA).start().ready()
	w.rec.on(2, func() { w.Change(func(s *keyring.Snapshot) { s.Keys[1].Revoked = time.Now() }) })
	const two = `{"profile":"p-ES256","subject":"u"},{"profile":"p-EdDSA","subject":"u"}`
	got := w.post(t.Context(), 1000, "/v1/sign/batch", strings.NewReader(`{"requests":[`+strings.Repeat(two+",", chunkSize)+two+`]}`))
	if got.Code != http.StatusServiceUnavailable || decode[api.Problem](t, got.Body.Bytes()).Code != api.NoActiveKey {
		t.Errorf("%d %.200s", got.Code, got.Body)
	}
}

// Where the log fails when it has to say so, the answer tells of the log.
func TestWithheldUnrecorded(t *testing.T) {
	const body = `{"profile":"p-ES256","subject":"u"}`
	w := newWorld(t, keyring.ES256).start().ready()
	w.rec.on(2, func() {
		w.Change(func(s *keyring.Snapshot) { s.Keys[0].Revoked = time.Now() })
		w.rec.breakWith(errDisk)
	})
	got := w.post(t.Context(), 1000, "/v1/sign/batch", strings.NewReader(`{"requests":[`+strings.Repeat(body+",", 2*chunkSize-1)+body+`]}`))
	if got.Code != http.StatusServiceUnavailable || decode[api.Problem](t, got.Body.Bytes()).Code != api.Unavailable {
		t.Errorf("%d %.200s", got.Code, got.Body)
	}
}
