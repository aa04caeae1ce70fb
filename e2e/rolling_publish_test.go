package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// generations watches which generation stands in a published file, as its side
// file says: it never falls.
type generations struct {
	t       *testing.T
	file    string
	highest uint64
	changes int
}

// now is the generation in the file; 0 in the moment in which it is replaced.
func (g *generations) now() uint64 {
	side, sideErr := os.ReadFile(g.file + ".keyturn")
	body, err := os.ReadFile(g.file)
	if err != nil || sideErr != nil {
		g.t.Errorf("the published file: %v %v", err, sideErr)
		return 0
	}
	var known struct {
		Sets []struct {
			Generation uint64
			SHA256     string `json:"sha256"`
		}
	}
	if err := json.Unmarshal(side, &known); err != nil {
		g.t.Errorf("the side file holds %q: %v", side, err)
		return 0
	}
	sum, newest := sha256.Sum256(body), uint64(0)
	for _, s := range known.Sets {
		if s.SHA256 == hex.EncodeToString(sum[:]) {
			newest = max(newest, s.Generation)
		}
	}
	return newest
}

func (g *generations) look() {
	switch now := g.now(); {
	case now == 0:
	case now < g.highest:
		g.t.Errorf("the file holds generation %d, and held %d before", now, g.highest)
	case now > g.highest:
		g.highest = now
		g.changes++
	}
}

// watch looks all the time, until it is told to stop or the test ends.
func (g *generations) watch() (stop func()) {
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-ending:
				return
			case <-time.After(2 * time.Millisecond):
				g.look()
			}
		}
	}()
	stop = sync.OnceFunc(func() {
		close(ending)
		<-ended
	})
	g.t.Cleanup(stop)
	return stop
}

// TestSlowPublisher: two replicas on one host write one file. One of them is
// stopped in the middle of its step, with a set that the other one replaces
// meanwhile; then it hears nothing of Vault any more. What stands in the file
// never goes back, and the one that is behind says so.
func TestSlowPublisher(t *testing.T) {
	t.Parallel()
	sites := replicaSites(t, 2)
	file := sites[0].path("jwks.json")
	sites[1].edit("file: jwks.json", "file: "+file)
	w, _ := sites[1].wired()
	for _, s := range sites {
		s.rarely("20s")
	}
	fast, slow := sites[0].start("web"), sites[1].start("web")
	for _, d := range []*daemon{fast, slow} {
		d.reason(20*time.Second, "ok", "", "")
	}
	tr := watched(t, fast)
	tr.without(func() { tr.endpoints = append(tr.endpoints, serveFile(t, file)) })
	g := &generations{t: t, file: file}
	stop := g.watch()

	slow.stopsInItsStep(t, fast, file, tr)
	slow.logged(10*time.Second, `"code":"target_ahead"`)
	slow.reason(20*time.Second, "ok", "", "")
	slow.canSign(10*time.Second, "web")

	// Its own view ends, and the file is not its alone to take away.
	w.poison("timeout", map[string]any{"timeout": 0})
	slow.reason(20*time.Second, "unavailable", "target_ahead", "holds a newer set") // the file is required
	slow.alarmed("target_ahead", true)
	within(t, 40*time.Second, "the end of its own set", func() error {
		if status := getStatus(t, slow.jwksURL()); status != 503 {
			return fmt.Errorf("its endpoint answers %d", status)
		}
		return nil
	})
	time.Sleep(time.Second) // some looks at the file
	w.heal()
	slow.reason(30*time.Second, "ok", "", "")
	stop()
	tr.end()
	if g.changes < 10 {
		t.Errorf("only %d generations were published", g.changes)
	}
	for i, d := range []*daemon{fast, slow} {
		if n := drifts(t, d); n != 0 {
			t.Errorf("replica %d takes the other one's work for an edit by hand, %d times", i, n)
		}
		if strings.Contains(d.out.String(), "taken away") {
			t.Errorf("replica %d took the file away", i)
		}
	}
	t.Logf("%d generations, the last is %d", g.changes, g.highest)
}

// stopsInItsStep stops a replica that is about to write a set, until the other
// one has rotated and published the next.
func (d *daemon) stopsInItsStep(t *testing.T, fast *daemon, file string, tr *traffic) {
	t.Helper()
	// Whoever waits for the lock has made up its mind what to write.
	kid, due := tr.signer("replica 0"), nextRotation(t, fast)
	time.Sleep(time.Until(due.Add(-4 * time.Second)))
	unlock := holdLock(t, file+".keyturn.lock")
	before := d.generation(t)
	within(t, 15*time.Second, "a newer set to write", func() error {
		if now := d.generation(t); now <= before+1 {
			return fmt.Errorf("generation %d, %d when the lock was taken", now, before)
		}
		return nil
	})
	must(t, d.cmd.Process.Signal(syscall.SIGSTOP))
	resume := sync.OnceFunc(func() { must(t, d.cmd.Process.Signal(syscall.SIGCONT)) })
	t.Cleanup(resume)
	unlock()
	within(t, 30*time.Second, "a set with the next standby", func() error {
		kids, err := kidsIn(must1(os.ReadFile(file))(t))
		if next, found := fast.key("web", "standby"); err != nil || !found || tr.signer("replica 0") == kid || !slices.Contains(kids, next.Kid) {
			return fmt.Errorf("the file shows %v, standby %s %v", kids, next.Kid, err)
		}
		return nil
	})
	resume()
}
