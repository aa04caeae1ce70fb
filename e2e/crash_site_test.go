package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// crashing is keyturn with its crash points (internal/crashpoint), built by the
// first test that wants it. It lies beside keyturn, and goes with it.
var crashing struct {
	once sync.Once
	path string
	err  error
}

func crashBinary(t *testing.T) string {
	t.Helper()
	crashing.once.Do(func() {
		crashing.path = filepath.Join(filepath.Dir(keyturn), "crashing")
		build := exec.Command("go", "build", "-buildvcs=false", "-race", "-tags", "crashpoints", "-o", crashing.path, "./cmd/keyturn")
		build.Dir = ".."
		build.Env = append(os.Environ(), "GOWORK=off")
		if out, err := build.CombinedOutput(); err != nil {
			crashing.err = fmt.Errorf("%w\n%s", err, out)
		}
	})
	if crashing.err != nil {
		t.Fatalf("build keyturn with its crash points: %v", crashing.err)
	}
	return crashing.path
}

// mortal is a site whose daemon gets killed, with a view past the daemon at
// what is stored and published.
type mortal struct {
	*site
	file   string                // the published one
	cache  time.Duration         // consumer_cache
	period time.Duration         // between two rotations
	halves func() []string       // the kids of which custody holds something
	stored func() mortalRecord   // the manifest
	gone   func(kid string) bool // nothing of a half is left
}

// mortalRecord is a manifest with what a crash may leave in it.
type mortalRecord struct {
	stored
	Orphans []struct {
		Kid    string    `json:"kid"`
		Closed time.Time `json:"closed"`
	} `json:"orphans"`
}

// find is the key of a kid; a zero one where there is none.
func (m mortalRecord) find(kid string) storedKey {
	for _, k := range m.Keys {
		if k.JWK.Kid == kid {
			return k
		}
	}
	return storedKey{}
}

// alive are the kids of the keys whose halves should be in custody, sorted.
func (m mortalRecord) alive() []string {
	kids := []string{}
	for _, k := range m.Keys {
		if k.Destroyed.IsZero() {
			kids = append(kids, k.JWK.Kid)
		}
	}
	slices.Sort(kids)
	return kids
}

// onVault is a mortal site on a mount of its own, with S 13.25s and a lead of
// 16.25s, so that a new key has little more than that to wait.
func onVault(t *testing.T) (*mortal, *secrets) {
	t.Helper()
	crashBinary(t) // it takes its time, which the clockwork should not
	server := sharedVault(t)
	mount := server.Unique("crash")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000}) // all of them, for oneChain
	v := newVaultSite(t, server, mount, "all")
	v.edit("outage_budget: 10s", "outage_budget: 6s").edit("max_token_ttl: 5s", "max_token_ttl: 3s").edit("@every 28s", "@every 18s")
	return mortalVault(v, 18*time.Second)
}

func mortalVault(v *vaultSite, period time.Duration) (*mortal, *secrets) {
	root := newSecrets(v, "main")
	return &mortal{
		site: v.site, file: v.site.path("jwks.json"), cache: vaultCache, period: period, gone: root.isGone,
		halves: func() []string { return sorted(root.kids()) },
		stored: func() (m mortalRecord) {
			v.t.Helper()
			status, body := v.get("GET", v.mount+"/data/issuers/main/manifest")
			var reply struct {
				Data struct{ Data struct{ Manifest string } }
			}
			if status == http.StatusNotFound {
				return m
			}
			must(v.t, json.Unmarshal(body, &reply))
			must(v.t, json.Unmarshal([]byte(reply.Data.Data.Manifest), &m))
			return m
		},
	}, root
}

// onLocal is a mortal site on embedded custody.
func onLocal(t *testing.T) *mortal {
	t.Helper()
	crashBinary(t)
	s := newSite(t)
	keys := s.path("custody/issuers/main/keys")
	m := &mortal{site: s, file: s.path("www/jwks.json"), cache: 2 * time.Second, period: 10 * time.Second}
	m.halves = func() []string {
		t.Helper()
		kids := []string{}
		if _, err := os.Stat(keys); errors.Is(err, os.ErrNotExist) {
			return kids
		}
		for _, name := range list(t, keys) {
			if kid, found := strings.CutSuffix(name, ".sealed"); found && !strings.HasPrefix(kid, ".") {
				kids = append(kids, kid)
			}
		}
		return sorted(kids)
	}
	m.stored = func() (r mortalRecord) {
		t.Helper()
		doc, err := os.ReadFile(s.path("custody/issuers/main/manifest.json"))
		if errors.Is(err, os.ErrNotExist) {
			return r
		}
		must(t, err)
		must(t, json.Unmarshal(doc, &r))
		return r
	}
	m.gone = func(kid string) bool { return !slices.Contains(m.halves(), kid) }
	return m
}

func sorted(kids []string) []string {
	out := append([]string{}, kids...)
	slices.Sort(out)
	return out
}

// runUntil runs a daemon that kills itself at a crash point.
func (m *mortal) runUntil(at string) *daemon {
	m.t.Helper()
	return startBinary(m.t, crashBinary(m.t), m.daemon(), []string{"KEYTURN_CRASH_AT=" + at}, "run", "--config", m.save())
}

// crashes waits until the daemon has killed itself.
func (d *daemon) crashes(limit time.Duration) {
	d.t.Helper()
	select {
	case err := <-d.exited:
		d.cmd = nil
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			d.t.Fatalf("keyturn ended with %v, not by its crash point", err)
		}
	case <-time.After(limit):
		d.t.Fatalf("keyturn did not come to its crash point within %s", limit)
	}
}

// published are the kids of the published file.
func (m *mortal) published() []string {
	m.t.Helper()
	kids, err := kidsIn(must1(os.ReadFile(m.file))(m.t))
	must(m.t, err)
	return kids
}

// follow signs with the site's daemon, while there is one, and verifies with
// the published file, which a web server of the user's serves all the time, and
// with others.
func (m *mortal) follow(others ...string) *traffic {
	m.t.Helper()
	tr := &traffic{t: m.t, mortal: true, cache: m.cache, callers: []caller{{"web", &daemon{sign: m.path("sign.sock")}, ask("web")}}}
	for _, file := range append(others, m.file) {
		tr.endpoints = append(tr.endpoints, serveFile(m.t, file))
	}
	return startTraffic(tr)
}

// serveFile serves the file that is at a path, whoever writes it.
func serveFile(t *testing.T, path string) string {
	t.Helper()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, path) }))
	t.Cleanup(web.Close)
	return web.URL
}

// settles waits until the ring has one active and one standby key, which is
// known to be published, and custody holds the halves that the manifest names
// and no others but those given. It returns the two kids.
func (m *mortal) settles(d *daemon, limit time.Duration, others ...string) (active, standby string) {
	m.t.Helper()
	within(m.t, limit, "one active key, one standby and their halves", func() error {
		all, err := d.issuers()
		if err != nil {
			return err
		}
		states := map[string][]string{}
		for _, k := range all.Issuers[0].Rings[0].Keys {
			if k.State != "standby" || len(k.WaitingFor) == 0 {
				states[k.State] = append(states[k.State], k.Kid)
			}
		}
		alive := m.stored().alive()
		halves, want := m.halves(), slices.Compact(sorted(append(alive, others...)))
		if len(states["active"]) != 1 || len(states["standby"]) != 1 || !slices.Equal(halves, want) {
			return fmt.Errorf("keys %v, halves %v, want %v", states, halves, want)
		}
		active, standby = states["active"][0], states["standby"][0]
		if !slices.Contains(alive, active) || !slices.Contains(alive, standby) {
			return fmt.Errorf("keys %v, and the halves of %v should be there", states, alive)
		}
		return nil
	})
	return active, standby
}

// noLitter wants nothing of half-written files once the daemon is at rest.
func (m *mortal) noLitter(dirs ...string) {
	m.t.Helper()
	within(m.t, 5*time.Second, "no litter of those who were killed", func() error {
		for _, dir := range append(dirs, filepath.Dir(m.file)) {
			for _, name := range list(m.t, dir) {
				if strings.HasSuffix(name, ".tmp") { // the living has one now and then
					return fmt.Errorf("%s is left in %s", name, dir)
				}
			}
		}
		return nil
	})
}

// ended says what is left of a half that is to be gone: no byte in custody, no
// orphan in the manifest.
func (m *mortal) ended(kid string) error {
	if !m.gone(kid) {
		return fmt.Errorf("something of %s is left", kid)
	}
	for _, o := range m.stored().Orphans {
		if o.Kid == kid {
			return fmt.Errorf("%s is still recorded as an orphan", kid)
		}
	}
	return nil
}
