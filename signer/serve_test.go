package signer

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/signer/socket"
)

// serving is a sign socket whose end the test decides.
type serving struct {
	path string
	stop context.CancelFunc
	done chan error
}

func (w *world) serve() serving {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "sign.sock")
	ln, err := unixsock.Listen(unixsock.Config{Path: path, GID: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	s := serving{path, cancel, make(chan error, 1)}
	go func() { s.done <- w.s.Serve(ctx, ln, "default") }()
	return s
}

// ended waits for the end and returns how long it took.
func (s serving) ended(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("Serve = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the socket does not end")
	}
	return time.Since(began)
}

// A long batch is answered in time: what is not signed by then is unavailable.
func TestDrainOfABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ES256).mine()
	kid := w.Snap.Keys[0].JWK.Kid
	signing := make(chan struct{}, 1)
	w.Source.Halfs[kid] = keystest.Half{Key: w.Source.Halfs[kid].(keystest.Half).Key, Before: func() error {
		select {
		case signing <- struct{}{}:
		default:
		}
		time.Sleep(20 * time.Millisecond)
		return nil
	}}
	w.start().ready()
	s := w.serve()
	c := dial(t, s.path)
	type answer struct {
		api.BatchResponse
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		body := `{"requests":[` + strings.Repeat(`{"profile":"p-ES256","subject":"u"},`, 999) + `{"profile":"p-ES256","subject":"u"}]}`
		resp, err := c.http.Post("http://keyturn/v1/sign/batch", "application/json", strings.NewReader(body))
		if a.err = err; err == nil {
			a.err = json.NewDecoder(resp.Body).Decode(&a.BatchResponse)
			resp.Body.Close()
		}
		answers <- a
	}()
	<-signing
	s.stop()
	took := s.ended(t)
	got := <-answers
	if took > socket.DrainTime || got.err != nil || len(got.Results) != 1000 {
		t.Fatalf("drained in %s, %d results, %v", took, len(got.Results), got.err)
	}
	if got.Results[0].SignResponse == nil || got.Results[999].Error == nil || got.Results[999].Error.Code != api.Unavailable {
		t.Errorf("first %+v, last %+v", got.Results[0], got.Results[999])
	}
}
