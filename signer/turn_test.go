package signer

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
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
	e := []entry{parse([]byte(`{"profile":"p-ES256","subject":"u"}`))}
	d := w.s.judgeSome(t.Context(), alice, e, dk)
	if w.s.commit(t.Context(), dk); d[0].prob != nil {
		t.Fatal(d[0].prob)
	}
	dk.note(&d[0])
	if prob := dk.lapsed(); prob != nil {
		t.Errorf("within the lease: %v", prob)
	}
	sooner := d[0]
	sooner.until = time.Now().Add(-time.Second)
	dk.note(&sooner)
	if prob := dk.lapsed(); prob == nil || prob.Code != api.SigningLapsed {
		t.Errorf("after the lease: %v", prob)
	}
}
