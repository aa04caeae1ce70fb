package signer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
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
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/socket"
)

// counted counts the bytes that were read of a body.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// post asks the handler itself, as a caller with this uid.
func (w *world) post(ctx context.Context, uid uint32, path string, body io.Reader) *httptest.ResponseRecorder {
	peer := alice.Peer
	peer.UID = uid
	out := httptest.NewRecorder()
	w.s.Handler("default").ServeHTTP(out, httptest.NewRequestWithContext(unixsock.WithPeer(ctx, peer), http.MethodPost, path, body))
	return out
}

func TestStrangersBodyIsNotRead(t *testing.T) {
	var outcomes []Outcome
	w := refusingWorld(t)
	w.cfg.Observe = func(o Outcome) { o.Took = 0; outcomes = append(outcomes, o) }
	w.start().ready()
	// What somebody gets who may use other profiles.
	want := w.post(t.Context(), 1000, "/v1/sign", strings.NewReader(`{"profile":"nope"}`))
	foreign := w.post(t.Context(), 1000, "/v1/sign", strings.NewReader(`{"profile":"root"}`))
	if want.Code != 403 || foreign.Body.String() != want.Body.String() {
		t.Errorf("unknown profile %d %s, foreign one %s", want.Code, want.Body, foreign.Body)
	}
	outcomes = nil
	const requests = `{"requests":[{"profile":"orders"},{"profile":"orders"}]}`
	asked := []struct{ path, body string }{
		{"/v1/sign", `{"profile":"orders"}`}, {"/v1/sign", `{"profile":"nope"}`}, {"/v1/sign", "no JSON"}, {"/v1/sign", ""},
		{"/v1/sign", strings.Repeat(" ", api.MaxSignBytes+1)}, {"/v1/sign/batch", requests}, {"/v1/sign/batch", "no JSON"},
	}
	for _, tc := range asked {
		var n atomic.Int64
		before := len(w.rec.all())
		got := w.post(t.Context(), 7, tc.path, counted{strings.NewReader(tc.body), &n})
		if got.Code != 403 || got.Body.String() != want.Body.String() || !cmp.Equal(got.Header(), want.Header()) {
			t.Errorf("%s %.20q: %d %v %s, want what an unknown profile gets", tc.path, tc.body, got.Code, got.Header(), got.Body)
		}
		if n.Load() != 0 {
			t.Errorf("%s %.20q: %d bytes of the body were read", tc.path, tc.body, n.Load())
		}
		recs := w.rec.all()[before:]
		if len(recs) != 1 || recs[0].Decision != audit.Deny || recs[0].Code != "forbidden" || recs[0].UID != 7 || recs[0].Reason == "" || recs[0].Time.IsZero() {
			t.Errorf("%s: records %+v, want one denial", tc.path, recs)
		}
	}
	// Who is nobody in particular hears the same, and the log tells an operator why.
	before := len(w.rec.all())
	nobody := w.post(t.Context(), unixsock.Overflow, "/v1/sign", strings.NewReader(`{"profile":"orders"}`))
	if recs := w.rec.all()[before:]; nobody.Body.String() != want.Body.String() || len(recs) != 1 || !strings.Contains(recs[0].Reason, "65534 stands for everybody") {
		t.Errorf("the overflow uid: %s, %+v", nobody.Body, recs)
	}
	outcomes = outcomes[:len(asked)]
	if outcomes[0] != (Outcome{Code: api.Forbidden}) {
		t.Errorf("outcomes %+v", outcomes)
	}
	w.rec.breakWith(errDisk)
	if got := w.post(t.Context(), 7, "/v1/sign", nil); got.Code != 503 {
		t.Errorf("without a record: %d %s", got.Code, got.Body)
	}
}

// stuck is a body that does not come until it is told to.
type stuck struct {
	begun chan<- struct{}
	until <-chan struct{}
	once  atomic.Bool
}

func (s *stuck) Read([]byte) (int, error) {
	if !s.once.Swap(true) {
		s.begun <- struct{}{}
	}
	<-s.until
	return 0, io.ErrUnexpectedEOF
}

func TestBatchesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		w.cfg.Profiles[0].Allow = append(w.cfg.Profiles[0].Allow, profile.Rule{UID: ptr(uint32(1001))})
		w.start()
		synctest.Wait()
		asked, most := 5*maxBatches(), maxBatches()*3/4
		begun, until, done := make(chan struct{}, asked), make(chan struct{}), make(chan int, asked)
		for range asked {
			go func() { done <- w.post(t.Context(), 1000, "/v1/sign/batch", &stuck{begun: begun, until: until}).Code }()
		}
		synctest.Wait()
		if len(begun) != most {
			t.Errorf("%d bodies of one user are read at once, want %d", len(begun), most)
		}
		// Another user does not wait for them.
		if got := w.post(t.Context(), 1001, "/v1/sign/batch", strings.NewReader(`{"requests":[]}`)); got.Code != 200 {
			t.Errorf("another user's batch: %d %s", got.Code, got.Body)
		}
		// Tokens one by one go on; a batch gives up with its context, or in time.
		w.mustSign("p-ES256")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		empty := strings.NewReader(`{"requests":[]}`)
		if got := w.post(ctx, 1000, "/v1/sign/batch", empty); got.Code != 503 || !strings.Contains(got.Body.String(), "stopping") {
			t.Errorf("a batch whose context ended: %d %s", got.Code, got.Body)
		}
		if got := w.post(t.Context(), 1000, "/v1/sign/batch", empty); got.Code != 503 || !strings.Contains(got.Body.String(), "too many batches") || got.Header().Get("Retry-After") == "" {
			t.Errorf("a batch that waited long: %d %v %s", got.Code, got.Header(), got.Body)
		}
		synctest.Wait() // the others gave up in the same instant
		close(until)
		codes := map[int]int{}
		for range asked {
			codes[<-done]++
		}
		if diff := cmp.Diff(map[int]int{400: most, 503: asked - most}, codes); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if got := w.post(t.Context(), 1000, "/v1/sign/batch", empty); got.Code != 200 {
			t.Errorf("afterwards: %d %s", got.Code, got.Body)
		}
	})
}

// waiting is a recorder behind a disk that is slow.
type waiting struct {
	*recorder
	takes time.Duration
}

func (r waiting) AppendAll(ctx context.Context, records []audit.Record) error {
	select {
	case <-time.After(r.takes):
		return r.recorder.AppendAll(ctx, records)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A caller that hangs up keeps nothing out of the log.
func TestRecordOutlivesTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := refusingWorld(t)
		w.cfg.Audit = waiting{w.rec, time.Second}
		w.start()
		synctest.Wait()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for _, uid := range []uint32{7, 1000} {
			for _, body := range []string{`{"profile":"nope"}`, `{"profile":"fixed"}`} {
				w.post(gone, uid, "/v1/sign", strings.NewReader(body))
			}
		}
		if recs := w.rec.all(); len(recs) != 4 || recs[3].Decision != audit.Allow {
			t.Errorf("%d records, want 4: %+v", len(recs), recs)
		}
		if got := w.s.Ready(time.Now()); len(got) != 0 || w.s.auditBroken.Load() != nil {
			t.Errorf("a caller that hung up broke the audit log: %+v", got)
		}
	})
}

// A log that hangs holds nobody for ever.
func TestRecordGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, keyring.ES256)
		w.cfg.Audit = waiting{w.rec, 24 * time.Hour}
		w.start()
		synctest.Wait()
		began := time.Now()
		_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
		if w.wantCode(prob, api.Unavailable, "audit log"); time.Since(began) != auditTime {
			t.Errorf("it took %s", time.Since(began))
		}
	})
}

// The time that a batch waits for its turn is not taken from its body and answer.
func TestWaitIsNotTheCallers(t *testing.T) {
	w := newWorld(t, keyring.ES256).mine().start().ready()
	ln, err := unixsock.Listen(unixsock.Config{Path: filepath.Join(t.TempDir(), "s"), GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	inner := w.s.Handler("default")
	srv := socket.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		// As if the wait had used up the server's time.
		d, over := http.NewResponseController(rw), time.Now()
		if err := errors.Join(d.SetReadDeadline(over), d.SetWriteDeadline(over)); err != nil {
			t.Error(err)
		}
		inner.ServeHTTP(rw, r)
	}), nil)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	// More than was read together with the header.
	resp, body := dial(t, ln.Addr().String()).do("POST", "/v1/sign/batch", `{"requests":[{"profile":"p-ES256","subject":"u"}]`+strings.Repeat(" ", 100<<10)+`}`)
	if got := decode[api.BatchResponse](t, body); resp.StatusCode != 200 || len(got.Results) != 1 || got.Results[0].SignResponse == nil {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
