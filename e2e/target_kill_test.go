package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// watcher polls what consumers read, and remembers which keys have to be there.
type watcher struct {
	t    *testing.T
	file string

	mu    sync.Mutex
	live  []api.SignResponse
	looks int
}

func (w *watcher) add(tok api.SignResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live = append(w.live, tok)
}

// look reads the file: it is always there, whole, and holds the key of every
// token that lives. It returns those tokens.
func (w *watcher) look() []api.SignResponse {
	w.mu.Lock()
	live := slices.Clone(w.live)
	w.mu.Unlock()
	doc, err := os.ReadFile(w.file)
	kids, parsed := kidsIn(doc)
	if err != nil || parsed != nil {
		w.t.Errorf("the published file: %v %v", err, parsed)
		return nil
	}
	live = slices.DeleteFunc(live, func(tok api.SignResponse) bool { return time.Now().After(tok.ExpiresAt) })
	for _, tok := range live {
		if !slices.Contains(kids, tok.Kid) {
			w.t.Errorf("the file shows %v, and a token of %s lives until %s", kids, tok.Kid, tok.ExpiresAt)
		}
	}
	w.mu.Lock()
	w.looks++
	w.mu.Unlock()
	return live
}

// slowReader has opened the published file and takes its time.
type slowReader struct {
	t     *testing.T
	file  *os.File
	began []byte
}

func newSlowReader(t *testing.T, path string) *slowReader {
	t.Helper()
	file := must1(os.Open(path))(t)
	t.Cleanup(func() { _ = file.Close() })
	return &slowReader{t, file, must1(io.ReadAll(file))(t)}
}

// finish reads again what it opened: another set stands at the path by now, and
// nothing was changed under the reader.
func (r *slowReader) finish() {
	r.t.Helper()
	_, err := r.file.Seek(0, io.SeekStart)
	must(r.t, err)
	if now := must1(io.ReadAll(r.file))(r.t); !bytes.Equal(r.began, now) {
		r.t.Errorf("the file was changed under a reader, from\n%s\nto\n%s", r.began, now)
	}
	if now := must1(os.ReadFile(r.file.Name()))(r.t); bytes.Equal(r.began, now) {
		r.t.Error("the published set has not changed")
	}
}

// TestKilledAgainAndAgain: kill -9 at any moment, five times. Whoever polls the
// published set never meets a bad one, every token verifies for all of its
// life, and the keys turn on.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	w := &watcher{t: t, file: s.path("www/jwks.json")}
	web := httptest.NewServer(http.FileServer(http.Dir(s.path("www")))) // a web server of the user's
	defer web.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
				w.look()
			}
		}
	}()
	slow := newSlowReader(t, w.file)
	kids := map[string]bool{}
	for range 5 {
		for end := time.Now().Add(2*time.Second + rand.N(3*time.Second)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			tok := d.mustToken("web")
			w.add(tok)
			kids[tok.Kid] = true
		}
		d.kill()
		var raw []string
		for _, tok := range w.look() {
			if time.Until(tok.ExpiresAt) > 2*time.Second {
				raw = append(raw, tok.Token)
			}
		}
		if _, err := goOIDC(t, web.URL+"/jwks.json", "http://"+s.public, "demo", 0, raw); err != nil {
			t.Errorf("after kill -9: %v", err)
		}
		if rand.N(2) == 0 { // and once more, at some point of its start
			early := s.run()
			time.Sleep(rand.N(300 * time.Millisecond))
			early.kill()
		}
		d = s.start("web")
	}
	close(stop)
	<-done
	if len(kids) < 2 {
		t.Errorf("no rotation in all that time: %v", kids)
	}
	slow.finish()
	within(t, 5*time.Second, "no litter of those who were killed", func() error {
		for _, name := range append(list(t, s.path("www")), list(t, s.path("custody/issuers/main/keys"))...) {
			if strings.HasSuffix(name, ".tmp") { // the living has one now and then
				return fmt.Errorf("%s is left", name)
			}
		}
		return nil
	})
	t.Logf("%d looks, keys %v", w.looks, kids)
}
