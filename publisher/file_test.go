package publisher_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
	"golang.org/x/sys/unix"
)

const interval = 10 * time.Second

func fileTarget(path string) publisher.Target {
	return publisher.Target{Name: "file", Kind: keyring.TargetFile, File: path, Required: true}
}

// startFile runs a publisher of one file target, in a bubble.
func startFile(t *testing.T, path string) *harness {
	t.Helper()
	h := start(t, publisher.Config{Interval: interval}, fileTarget(path))
	synctest.Wait()
	return h
}

// accept hands a snapshot over and waits until the targets rest.
func (h *harness) accept(s *keyring.Snapshot) {
	h.Accept("main", s)
	synctest.Wait()
}

func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantSet(t *testing.T, path string, keys ...keyring.JWK) {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	var set keyring.JWKSet
	if err := json.Unmarshal(doc, &set); err != nil {
		t.Errorf("%s: %v", path, err)
	}
	if got := kids(set.Keys...); !slices.Equal(got, kids(keys...)) {
		t.Errorf("%s holds %q, want %q", path, got, kids(keys...))
	}
}

func wantGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", path, err)
	}
}

// wantDir fails if there is litter.
func wantDir(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

type sideFile struct {
	Lineage string `json:"lineage"`
	Sets    []struct {
		Generation uint64    `json:"generation"`
		ServeUntil time.Time `json:"serve_until"`
	} `json:"sets"`
}

func readSide(t *testing.T, path string) sideFile {
	t.Helper()
	var s sideFile
	doc, err := os.ReadFile(path + ".keyturn")
	if err == nil {
		err = json.Unmarshal(doc, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFileIsPublishedAndReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "jwks.json")
		h := startFile(t, path)
		h.wantCodes(t, "not_published!")
		if len(h.Confirmed("main")) != 0 {
			t.Error("confirmed before anything was published")
		}

		a, b := newKey(t, keyring.ES256), newKey(t, keyring.EdDSA)
		s := snapshot(time.Now(), 7, a, b)
		h.accept(s)
		set, err := keyring.Set(s, time.Now(), keyring.ViewAll)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, set.Body) {
			t.Errorf("the file holds %q (%v), want %q", got, err, set.Body)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
			t.Errorf("mode %v (%v)", info.Mode(), err)
		}
		wantDir(t, dir, "jwks.json", "jwks.json.keyturn", "jwks.json.keyturn.lock")
		h.wantCodes(t)
		h.wantConfirmed(t, "file", a, b)
		if got, want := h.events.woken.Load(), int64(1); got != want {
			t.Errorf("woken %d times, want %d", got, want)
		}
		st := h.status(t, "file")
		if st.Location != path || st.Generation != 7 || !st.ServeUntil.Equal(s.ServeUntil()) || !st.ReadBackAt.Equal(time.Now()) || st.Err != nil || !st.Required || len(st.Behind) != 0 {
			t.Errorf("status %+v", st)
		}

		// Nothing changes: it is looked at, not written, and nobody is woken.
		before, _ := os.Stat(path)
		rest(5 * interval)
		after, _ := os.Stat(path)
		if !os.SameFile(before, after) || h.events.woken.Load() != 1 || h.events.good.Load() != 1 || h.events.bad.Load() > 0 {
			t.Errorf("an idle target was written or reported: %d %d %d", h.events.woken.Load(), h.events.good.Load(), h.events.bad.Load())
		}
		if at := h.status(t, "file").ReadBackAt; time.Since(at) >= interval {
			t.Errorf("read back last at %s, now %s", at, time.Now())
		}
	})
}

// A renewed lease changes no key: only the side file is written.
func TestRenewedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		h := startFile(t, path)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now(), 1, key))
		before, _ := os.Stat(path)
		rest(time.Minute)
		s := snapshot(time.Now(), 2, key)
		h.accept(s)
		after, _ := os.Stat(path)
		if !os.SameFile(before, after) {
			t.Error("the same bytes were written again")
		}
		side := readSide(t, path)
		if len(side.Sets) != 1 || side.Sets[0].Generation != 2 || !side.Sets[0].ServeUntil.Equal(s.ServeUntil()) {
			t.Errorf("side file %+v", side)
		}
	})
}

// A key leaves the file at the instant at which its tail has passed, not at
// the next event or look.
func TestFileIsRenderedByDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		h := start(t, publisher.Config{Interval: 24 * time.Hour}, fileTarget(path))
		old, active := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		now := time.Now()
		s := snapshot(now, 1, active)
		s.Keys = append(s.Keys, keyring.Key{
			JWK: old, Ring: "web", Activated: now.Add(-time.Hour), Retired: now, SignUntil: now, Closed: now,
			Tail: keyring.Duration(30 * time.Minute),
		})
		h.accept(s)
		rest(30*time.Minute - time.Second)
		wantSet(t, path, old, active)
		rest(2 * time.Second)
		wantSet(t, path, active)
		h.wantCodes(t)
		h.wantConfirmed(t, "file", active)
	})
}

func TestDriftIsRepairedWithinALook(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"edited":            func(t *testing.T, path string) { write(t, path, `{"keys":[]}`) },
		"emptied":           func(t *testing.T, path string) { write(t, path, "") },
		"huge":              func(t *testing.T, path string) { write(t, path, strings.Repeat(" ", 2<<20)) },
		"removed":           func(t *testing.T, path string) { os.Remove(path) },
		"side file edited":  func(t *testing.T, path string) { write(t, path+".keyturn", "{}") },
		"side file removed": func(t *testing.T, path string) { os.Remove(path + ".keyturn") },
		"both removed":      func(t *testing.T, path string) { os.Remove(path); os.Remove(path + ".keyturn") },
		"side file of no sets": func(t *testing.T, path string) {
			write(t, path+".keyturn", `{"format":1,"issuer":"main","lineage":"x","sets":[]}`)
		},
		"edited, side file remade": func(t *testing.T, path string) { write(t, path, "x"); write(t, path+".keyturn", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "jwks.json")
				h := startFile(t, path)
				key := newKey(t, keyring.ES256)
				s := snapshot(time.Now(), 1, key)
				h.accept(s)
				spoil(t, path)
				rest(interval + time.Second)
				wantSet(t, path, key)
				if side := readSide(t, path); side.Lineage != lineage || side.Sets[len(side.Sets)-1].Generation != 1 {
					t.Errorf("side file %+v", side)
				}
				h.wantCodes(t, "target_drift")
				if got := h.events.drifted.Load(); got != 1 {
					t.Errorf("drift counted %d times", got)
				}
				rest(interval)
				h.wantCodes(t)
				if got := h.events.drifted.Load(); got != 1 {
					t.Errorf("drift counted %d times after the repair", got)
				}
			})
		})
	}
}

func TestForeignTargetsAreRefused(t *testing.T) {
	foreign := `{"keys":[{"kty":"RSA","kid":"theirs","n":"AQAB","e":"AQAB"}]}`
	for name, tc := range map[string]struct {
		put  func(t *testing.T, path string)
		want string
	}{
		"a set of somebody else": {func(t *testing.T, path string) { write(t, path, foreign) }, "adopt_until"},
		"an empty file":          {func(t *testing.T, path string) { write(t, path, "") }, "adopt_until"},
		"a set of another lineage": {func(t *testing.T, path string) {
			h := startFile(t, path)
			s := snapshot(time.Now(), 1, newKey(t, keyring.ES256))
			s.Lineage = "lineage-two"
			h.accept(s)
			h.stop()
		}, "lineage-two"},
		"a set of another issuer": {func(t *testing.T, path string) {
			h := start(t, publisher.Config{Issuers: []publisher.Issuer{{Name: "other", URL: "https://x", Targets: []publisher.Target{fileTarget(path)}}}})
			h.Accept("other", snapshot(time.Now(), 1, newKey(t, keyring.ES256)))
			synctest.Wait()
			h.stop()
		}, `issuer "other"`},
		"a spoilt side file": {func(t *testing.T, path string) { write(t, path, foreign); write(t, path+".keyturn", "?") }, "remove both files"},
		"a newer side file": {func(t *testing.T, path string) {
			write(t, path, foreign)
			write(t, path+".keyturn", `{"format":2}`)
		}, "run a newer one"},
		"a link": {func(t *testing.T, path string) {
			write(t, path+".real", foreign)
			must(t, os.Symlink(path+".real", path))
		}, "symbolic link"},
		"a FIFO":      {func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o644)) }, "FIFO"},
		"a directory": {func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o755)) }, "directory"},
		"a link at the side file": {func(t *testing.T, path string) {
			write(t, path+".real", "{}")
			must(t, os.Symlink("jwks.json.real", path+".keyturn"))
		}, "symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "jwks.json")
				tc.put(t, path)
				before := look(t, dir)
				h := startFile(t, path)
				h.accept(snapshot(time.Now(), 9, newKey(t, keyring.ES256)))
				rest(3 * interval)
				if codes := h.codes(); !slices.Contains(codes, "publish_refused!") {
					t.Errorf("alarms %q", codes)
				}
				if err := h.status(t, "file").Err; err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want one with %q", err, tc.want)
				}
				if after := look(t, dir); before != after {
					t.Errorf("the directory was touched:\n%s\nwas\n%s", after, before)
				}
				if seen := h.Confirmed("main")["file"]; len(seen.Kids) > 0 || h.events.drifted.Load() > 0 {
					t.Errorf("confirmed %q, drift %d", seen.Kids, h.events.drifted.Load())
				}
			})
		})
	}
}

// look describes a directory but for the lock file.
func look(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".lock") {
			continue
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		data := ""
		if info.Mode().IsRegular() {
			doc, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			data = string(doc)
		}
		fmt.Fprintln(&b, e.Name(), info.Mode(), info.Sys().(*syscall.Stat_t).Ino, data)
	}
	return b.String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The operator does what the message says, and the daemon goes on by itself.
func TestRefusedTargetIsMended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		write(t, path, "theirs")
		h := startFile(t, path)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now(), 9, key))
		h.wantCodes(t, "publish_refused!")
		must(t, os.Remove(path))
		rest(interval + time.Second)
		wantSet(t, path, key)
		h.wantCodes(t)
		h.stop()

		// The same with the target of another lineage.
		other := startFile(t, path)
		s := snapshot(time.Now(), 1, key)
		s.Lineage = "lineage-two"
		other.accept(s)
		rest(interval)
		other.wantCodes(t, "publish_refused!")
		must(t, os.Remove(path))
		must(t, os.Remove(path+".keyturn"))
		rest(interval + time.Second)
		wantSet(t, path, key)
		other.wantCodes(t)
	})
}

// What an earlier process wrote is repaired like what this one did.
func TestDriftAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		s := snapshot(time.Now(), 1, newKey(t, keyring.ES256))
		first := startFile(t, path)
		first.accept(s)
		first.stop()
		second := startFile(t, path)
		second.accept(s)
		write(t, path+".keyturn", "spoilt")
		rest(interval + time.Second)
		if side := readSide(t, path); len(side.Sets) != 1 {
			t.Errorf("side file %+v", side)
		}
		second.wantCodes(t, "target_drift")
	})
}
