package signer

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/signer/request"
)

// Whatever is asked waits for its caller's turn, also by one who may sign
// nothing, and what is wrong with a batch is found within one.
func TestEverythingTakesATurn(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	for _, uid := range []uint32{1000, 7} {
		for { // until none is left
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			_, err := w.s.turns.Enter(ctx, uid)
			cancel()
			if err != nil {
				break
			}
		}
	}
	for _, tc := range []struct {
		uid                uint32
		method, path, body string
	}{
		{7, "POST", "/v1/sign", `{}`},
		{7, "GET", "/v1/jwks", ""},
		{7, "GET", "/v1/profiles", ""},
		{7, "GET", "/nowhere", ""},
		{1000, "POST", "/v1/sign", `{}`},
		{1000, "POST", "/v1/sign/batch", `{"requests":7}`},
	} {
		ctx, cancel := context.WithTimeout(unixsock.WithPeer(t.Context(), unixsock.Peer{UID: tc.uid, GID: tc.uid}), 20*time.Millisecond)
		r := httptest.NewRequestWithContext(ctx, tc.method, tc.path, strings.NewReader(tc.body))
		got := httptest.NewRecorder()
		w.s.Handler("default").ServeHTTP(got, r)
		cancel()
		if got.Code != http.StatusServiceUnavailable {
			t.Errorf("uid %d, %s %s: %d %s, want that it waited", tc.uid, tc.method, tc.path, got.Code, got.Body)
		}
	}
}

// The tokens of a batch were good when each was recorded; the last look is when
// all of them are released.
func TestLastLookAtABatch(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	dk := newDesk()
	defer dk.clear()
	e := []request.Entry{request.Parse([]byte(`{"profile":"p-ES256","subject":"u"}`))}
	d := w.s.judgeSome(t.Context(), alice, e, dk)
	if w.s.commit(t.Context(), dk); d[0].prob != nil {
		t.Fatal(d[0].prob)
	}
	dk.note(&d[0])
	if prob := dk.lapsed(w.s.keys.At(time.Now())); prob != nil {
		t.Errorf("within the lease: %v", prob)
	}
	sooner := d[0]
	sooner.until = time.Now().Add(-time.Second)
	dk.note(&sooner)
	if prob := dk.lapsed(w.s.keys.At(time.Now())); prob == nil || prob.Code != api.SigningLapsed {
		t.Errorf("after the lease: %v", prob)
	}
}

// A panic, which net/http survives, gives every turn back.
func TestPanicLeavesItsTurn(t *testing.T) {
	w := newWorld(t, keyring.ES256)
	kid := w.Snap.Keys[0].JWK.Kid
	var broken atomic.Bool
	w.Source.Halfs[kid] = keystest.Half{Key: w.Source.Halfs[kid].(keystest.Half).Key, Before: func() error {
		if broken.Load() {
			panic("the half")
		}
		return nil
	}}
	w.start().ready()
	h := w.s.Handler("default")
	const request = `{"profile":"p-ES256","subject":"u"}`
	for _, tc := range []struct{ method, path, body string }{
		{"POST", "/v1/sign", request},
		{"POST", "/v1/sign/batch", `{"requests":[` + request + `]}`},
		{"GET", "/v1/profiles", ""},
	} {
		ask := func(out http.ResponseWriter) (panicked bool) {
			defer func() { panicked = recover() != nil }()
			ctx, cancel := context.WithTimeout(unixsock.WithPeer(t.Context(), alice.Peer), 5*time.Second)
			defer cancel()
			h.ServeHTTP(out, httptest.NewRequestWithContext(ctx, tc.method, tc.path, strings.NewReader(tc.body)))
			return false
		}
		broken.Store(true)
		for i := range 4 + 2*max(runtime.GOMAXPROCS(0), maxBatches()) { // more than there are of any kind
			if !ask(unwritable{httptest.NewRecorder()}) {
				t.Fatalf("%s: request %d did not panic; did it wait for a turn?", tc.path, i)
			}
		}
		broken.Store(false)
		got := httptest.NewRecorder()
		if panicked := ask(got); panicked || got.Code != http.StatusOK {
			t.Errorf("%s afterwards: panicked %t, %d %s", tc.path, panicked, got.Code, got.Body)
		}
	}
}

// unwritable is an answer that panics when it is written, unless it refuses.
type unwritable struct{ *httptest.ResponseRecorder }

func (u unwritable) Write(p []byte) (int, error) {
	if u.Code == http.StatusOK {
		panic("the answer")
	}
	return u.ResponseRecorder.Write(p)
}

// A batch that is refused because it waited too long for its turn is in the log
// like every refusal.
func TestRefusedBatchIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		var outcomes []Outcome
		w.cfg.Observe = func(o Outcome) { outcomes = append(outcomes, o) }
		w.start()
		synctest.Wait()
		for { // until none is left for this user
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := w.s.batches.Enter(ctx, 1000)
			cancel()
			if err != nil {
				break
			}
		}
		const body = `{"requests":[{"profile":"p-ES256","subject":"u"}]}`
		ended, end := context.WithCancel(t.Context())
		end()
		for i, ctx := range []context.Context{t.Context(), ended} { // waited too long; the daemon stops
			if got := w.post(ctx, 1000, "/v1/sign/batch", strings.NewReader(body)); got.Code != http.StatusServiceUnavailable {
				t.Fatalf("%d %s, want that it waited", got.Code, got.Body)
			}
			recs := w.rec.all()
			if len(recs) != i+1 {
				t.Fatalf("%d records of %d refusals: %+v", len(recs), i+1, recs)
			}
			if r := recs[i]; r.Decision != audit.Deny || r.Code != string(api.Unavailable) || r.UID != 1000 || r.Socket != "default" || r.Reason == "" || r.Time.IsZero() {
				t.Errorf("record %+v", r)
			}
		}
		if len(outcomes) != 2 || outcomes[0].Code != api.Unavailable {
			t.Errorf("outcomes %+v", outcomes)
		}
	})
}
