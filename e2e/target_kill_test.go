package e2e

import (
	"bytes"
	"flag"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

var (
	kills     = flag.Int("kills", 20, "how often TestKilledAgainAndAgain kills its daemons")
	killsSeed = flag.Uint64("kills.seed", 0, "the moments at which it does; 0 draws them")
)

// watcher polls what consumers read, and remembers which keys have to be there.
type watcher struct {
	t    *testing.T
	file string

	mu    sync.Mutex
	live  map[string]api.SignResponse // by kid: the token that lives longest
	looks int
}

func (w *watcher) add(tok api.SignResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if tok.ExpiresAt.After(w.live[tok.Kid].ExpiresAt) {
		w.live[tok.Kid] = tok
	}
}

// look reads the file: it is always there, whole, and holds the key of every
// token that lives. It returns those tokens.
func (w *watcher) look() []api.SignResponse {
	w.mu.Lock()
	maps.DeleteFunc(w.live, func(_ string, tok api.SignResponse) bool { return time.Now().After(tok.ExpiresAt) })
	live := slices.Collect(maps.Values(w.live))
	w.mu.Unlock()
	doc, err := os.ReadFile(w.file)
	kids, parsed := kidsIn(doc)
	if err != nil || parsed != nil {
		w.t.Errorf("the published file: %v %v", err, parsed)
		return nil
	}
	for _, tok := range live {
		if !slices.Contains(kids, tok.Kid) && time.Now().Before(tok.ExpiresAt) {
			w.t.Errorf("the file shows %v, and a token of %s lives until %s", kids, tok.Kid, tok.ExpiresAt)
		}
	}
	w.mu.Lock()
	w.looks++
	w.mu.Unlock()
	return live
}

// poll looks again and again until it is told to stop.
func (w *watcher) poll() (stop func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ending:
				return
			case <-time.After(3 * time.Millisecond):
				w.look()
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(ending)
		<-ended
	})
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

// TestKilledAgainAndAgain: kill -9 at any moment, -kills times. Whoever polls
// the published set never meets a bad one, every token verifies for all of its
// life, also with the oldest copy that a consumer may use, and the keys turn on.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	seed := *killsSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Run("local", func(t *testing.T) {
		t.Parallel()
		m := onLocal(t)
		m.killedAgainAndAgain(seed, 1)
		m.noLitter(m.path("custody/issuers/main/keys"), m.path("custody/issuers/main"), m.path("state"))
	})
	t.Run("vault", func(t *testing.T) {
		t.Parallel()
		m, root := onVault(t)
		m.killedAgainAndAgain(seed, 2)
		m.noLitter(m.path("state"))
		if _, versions := root.manifest("main", 0); versions <= 1000 { // else the first are forgotten
			oneChain(t, root.vaultSite)
		}
	})
}

func (m *mortal) killedAgainAndAgain(seed, stream uint64) {
	m.t.Helper()
	m.t.Logf("-kills %d -kills.seed %d", *kills, seed)
	random := rand.New(rand.NewPCG(seed, stream))
	upTo := func(limit time.Duration) time.Duration { return time.Duration(random.Int64N(int64(limit))) }
	d := m.start("web")
	m.settles(d, 20*time.Second)
	w := &watcher{t: m.t, file: m.file, live: map[string]api.SignResponse{}}
	stop := w.poll()
	m.t.Cleanup(stop)
	tr := m.follow()
	slow := newSlowReader(m.t, m.file)
	web := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(m.file)))) // a web server of the user's
	defer web.Close()
	began := time.Now()
	for n := range *kills {
		for end := time.Now().Add(100*time.Millisecond + upTo(3*time.Second)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			w.add(d.mustToken("web"))
		}
		d.kill()
		w.verify(web.URL+"/"+filepath.Base(m.file), n)
		if random.IntN(2) == 0 { // and once more, at some point of its start
			early := m.run()
			time.Sleep(upTo(500 * time.Millisecond))
			early.kill()
		}
		d = m.start("web")
	}
	took := time.Since(began)
	signed := tr.signers("web")
	// A rotation that is due happens as soon as somebody lives who can make it.
	if want := int(took / (m.period + m.period/2)); len(signed)-1 < want {
		m.t.Errorf("%d rotations in %s, want %d at least: %v", len(signed)-1, took, want, signed)
	}
	// One that is being made just now has its name in a moment.
	m.settles(d, 20*time.Second, m.nameless()...)
	slow.finish()
	stop()
	m.t.Logf("%d kills in %s, %d rotations, %d looks", *kills, took.Round(time.Second), len(signed)-1, w.looks)
}

// verify judges what lives by the signature, too.
func (w *watcher) verify(url string, kill int) {
	w.t.Helper()
	for _, tok := range w.look() {
		if time.Until(tok.ExpiresAt) < time.Second {
			continue // it would be over before it is judged
		}
		if err := verifyWith(url, tok.Token, "demo"); err != nil {
			w.t.Errorf("after kill -9 number %d: %v", kill+1, err)
		}
	}
}
