package publisher_test

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
)

func confirmTarget(url string) publisher.Target {
	return publisher.Target{Name: url, Kind: keyring.TargetConfirm, ConfirmURL: url, Required: true}
}

// lying serves whatever it was told last.
type lying struct {
	mu     sync.Mutex
	body   []byte
	status int
	header map[string]string
	asked  atomic.Int64
}

func (l *lying) tell(status int, body []byte, header ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status, l.body, l.header = status, body, map[string]string{}
	for i := 0; i < len(header); i += 2 {
		l.header[header[i]] = header[i+1]
	}
}

func (l *lying) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, v := range l.header {
		w.Header().Set(k, v)
	}
	w.WriteHeader(l.status)
	w.Write(l.body)
}

func startConfirm(t *testing.T) (*harness, *lying, publisher.Target) {
	t.Helper()
	l := &lying{status: 404}
	srv := httptest.NewServer(l)
	t.Cleanup(srv.Close)
	target := confirmTarget(srv.URL + "/jwks.json")
	return start(t, publisher.Config{Interval: 20 * time.Millisecond}, target), l, target
}

// A cache on the way that still has the old set is seen through, and what it
// shows later wakes the rotator.
func TestConfirmSeesWhatConsumersSee(t *testing.T) {
	h, l, target := startConfirm(t)
	old, next := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
	l.tell(200, setOf(t, old), "Keyturn-Lineage", lineage, "Keyturn-Generation", "3")
	h.Accept("main", snapshot(time.Now(), 4, old, next))
	eventually(t, "the old set was seen", func() bool { return h.events.woken.Load() == 1 })
	h.wantConfirmed(t, target.Name, old)
	if st := h.status(t, target.Name); st.Generation != 3 || !slices.Equal(st.Behind, kids(next)) || st.Err != nil || st.Location != target.ConfirmURL {
		t.Errorf("status %+v", st)
	}
	asked := l.asked.Load()
	eventually(t, "it was asked again", func() bool { return l.asked.Load() > asked+2 })
	if h.events.woken.Load() != 1 {
		t.Error("woken though nothing changed")
	}
	before := time.Now()
	l.tell(200, setOf(t, next, old))
	eventually(t, "the new set was seen", func() bool { return h.events.woken.Load() == 2 })
	h.wantConfirmed(t, target.Name, old, next)
	if at := h.Confirmed("main")[target.Name].At; at.Before(before) || at.After(time.Now()) {
		t.Errorf("read back at %s, which is not the end of the fetch", at)
	}
	h.wantCodes(t)
	// One that falls back is seen too: its record has to be voided.
	l.tell(200, setOf(t, old))
	eventually(t, "the old set was seen again", func() bool { return h.events.woken.Load() == 3 })
	h.wantConfirmed(t, target.Name, old)
}

// A key counts only as a whole.
func TestConfirmComparesWholeKeys(t *testing.T) {
	ours, other := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
	changed := func(change func(*keyring.JWK)) keyring.JWK {
		k := ours
		change(&k)
		return k
	}
	same := changed(func(k *keyring.JWK) { k.X, k.Y = other.X, other.Y })
	for name, tc := range map[string]struct {
		doc  string
		want []keyring.JWK
	}{
		"ours":                  {string(setOf(t, ours)), []keyring.JWK{ours}},
		"ours twice":            {string(setOf(t, ours, ours)), []keyring.JWK{ours}},
		"ours, more members":    {strings.Replace(string(setOf(t, ours)), `{"kty"`, `{"x5t":"AA","kty"`, 1), []keyring.JWK{ours}},
		"ours among others":     {strings.Replace(string(setOf(t, ours)), `[`, `[{"kty":"XYZ","n":"AA"},`, 1), []keyring.JWK{ours}},
		"our kid, another key":  {string(setOf(t, same)), nil},
		"our kid, both":         {string(setOf(t, same, ours)), nil},
		"our kid, both, turned": {string(setOf(t, ours, same)), nil},
		"another alg":           {string(setOf(t, changed(func(k *keyring.JWK) { k.Alg = keyring.ES384 }))), nil},
		"another use":           {string(setOf(t, changed(func(k *keyring.JWK) { k.Use = "enc" }))), nil},
		"another kid":           {string(setOf(t, changed(func(k *keyring.JWK) { k.Kid = "k" }))), nil},
		"an empty set":          {`{"keys":[]}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h, l, target := startConfirm(t)
			l.tell(200, []byte(tc.doc))
			h.Accept("main", snapshot(time.Now(), 1, ours))
			eventually(t, "it was read", func() bool { return len(h.Confirmed("main")) == 1 })
			h.wantConfirmed(t, target.Name, tc.want...)
		})
	}
}

// What a consumer would not take confirms nothing.
func TestConfirmRefuses(t *testing.T) {
	key := newKey(t, keyring.ES256)
	good := setOf(t, key)
	for name, tc := range map[string]struct {
		status int
		body   string
		header []string
		want   string
	}{
		"not found":      {404, string(good), nil, "answered 404"},
		"an error":       {500, string(good), nil, "answered 500"},
		"no content":     {203, string(good), nil, "answered 203"},
		"a redirect":     {302, string(good), []string{"Location", "/elsewhere"}, "do not follow redirects"},
		"too large":      {200, string(good) + strings.Repeat(" ", 1<<20), nil, "more than"},
		"no JSON":        {200, "<html>", nil, "not a key set"},
		"no keys":        {200, `{"Keys":[]}`, nil, `no member "keys"`},
		"null":           {200, `null`, nil, "not a key set"},
		"twice":          {200, `{"keys":[],"keys":[]}`, nil, "appears twice"},
		"trailing":       {200, string(good) + "{}", nil, "data after"},
		"keys no list":   {200, `{"keys":{}}`, nil, "not a key set"},
		"key no object":  {200, `{"keys":["x"]}`, nil, "not a key set"},
		"alg no string":  {200, `{"keys":[{"alg":1}]}`, nil, "not a key set"},
		"half an answer": {200, string(good[:20]), nil, "not a key set"},
	} {
		t.Run(name, func(t *testing.T) {
			h, l, target := startConfirm(t)
			l.tell(tc.status, []byte(tc.body), tc.header...)
			h.Accept("main", snapshot(time.Now(), 1, key))
			eventually(t, "it failed", func() bool { return slices.Equal(h.codes(), []string{"confirm_failed"}) })
			if err := h.status(t, target.Name).Err; err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), target.ConfirmURL) {
				t.Errorf("error %v, want one with %q and the URL", err, tc.want)
			}
			if len(h.Confirmed("main")) > 0 {
				t.Errorf("confirmed %v", h.Confirmed("main"))
			}
			// And it recovers by itself.
			l.tell(200, good)
			eventually(t, "it recovered", func() bool { return len(h.Confirmed("main")) == 1 && len(h.codes()) == 0 })
		})
	}
}

func TestConfirmChecksCertificates(t *testing.T) {
	key := newKey(t, keyring.ES256)
	l := &lying{}
	l.tell(200, setOf(t, key))
	srv := httptest.NewUnstartedServer(l)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	trusting := start(t, publisher.Config{Interval: 20 * time.Millisecond, Roots: roots}, confirmTarget(srv.URL))
	doubting := start(t, publisher.Config{Interval: 20 * time.Millisecond}, confirmTarget(srv.URL))
	for _, h := range []*harness{trusting, doubting} {
		h.Accept("main", snapshot(time.Now(), 1, key))
	}
	eventually(t, "it was confirmed", func() bool { return len(trusting.Confirmed("main")) == 1 })
	eventually(t, "it was doubted", func() bool { return slices.Equal(doubting.codes(), []string{"confirm_failed"}) })
	trusting.stop()
	doubting.stop()
}

// A target that hangs stalls neither the others nor Accept nor the end.
func TestSlowTargetStallsNobody(t *testing.T) {
	release := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(release)
	path := filepath.Join(t.TempDir(), "jwks.json")
	h := start(t, publisher.Config{Interval: 20 * time.Millisecond}, confirmTarget(srv.URL), fileTarget(path))
	key, next := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
	h.Accept("main", snapshot(time.Now(), 1, key))
	eventually(t, "the file was published", func() bool { return len(h.Confirmed("main")["file"].Kids) == 1 })
	h.Accept("main", snapshot(time.Now(), 2, key, next))
	eventually(t, "the file was published again", func() bool { return len(h.Confirmed("main")["file"].Kids) == 2 })
	before := time.Now()
	h.stop()
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("it took %s to stop", took)
	}
}
