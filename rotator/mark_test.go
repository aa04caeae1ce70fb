package rotator_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

func in(dir string) func(*rotator.Config) {
	return func(c *rotator.Config) { c.StateDir = dir }
}

// writes counts what changes the store.
func (w *world) writes() int {
	return w.count("save") + w.count("create") + w.count("destroy")
}

// stored is a manifest as the store has it.
type stored struct {
	doc     []byte
	version int
}

func (w *world) keep() stored {
	w.mu.Lock()
	defer w.mu.Unlock()
	return stored{w.doc, w.version}
}

func (w *world) put(s stored) { w.change(func() { w.doc, w.version = s.doc, s.version }) }

// changed is a manifest that no replica wrote.
func changed(t *testing.T, doc []byte, f func(*keyring.Snapshot)) []byte {
	t.Helper()
	s, err := keyring.Decode(doc)
	if err != nil {
		t.Fatal(err)
	}
	s = s.Clone()
	f(s)
	if doc, err = keyring.Encode(s); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestMark: a replica that has seen a manifest acts on none that is older, of
// another lineage, or missing, restarts included. Faults 14 and 15.
func TestMark(t *testing.T) {
	for _, tc := range []struct {
		name, says string
		put        func(older, now stored) stored
	}{
		{"an older generation", "the store was restored from an older copy", func(older, _ stored) stored { return older }},
		{"another lineage", "another manifest was put in its place", func(_, now stored) stored {
			return stored{changed(t, now.doc, func(s *keyring.Snapshot) { s.Lineage = "another"; s.Generation += 100 }), now.version}
		}},
		{"the same generation, written by somebody else", "was written twice", func(_, now stored) stored {
			return stored{changed(t, now.doc, func(s *keyring.Snapshot) { s.WriteID = "another" }), now.version}
		}},
		{"none", "and this replica has seen generation", func(stored, stored) stored { return stored{} }},
		{"a corrupt one", "corrupt manifest", func(_, now stored) stored { return stored{now.doc[:100], now.version} }},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(tc.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { refusesToGoBack(t, restart, tc.says, tc.put) })
			})
		}
	}
}

func refusesToGoBack(t *testing.T, restart bool, says string, put func(older, now stored) stored) {
	w, dir := newWorld(t), t.TempDir()
	r := w.start(in(dir))
	sleep(20 * time.Minute)
	older := w.keep()
	sleep(50 * time.Minute)
	now := w.keep()
	seen := w.manifest()
	if bytes.Equal(older.doc, now.doc) {
		t.Fatal("nothing happened")
	}
	if restart {
		r.stop()
	}
	w.put(put(older, now))
	if restart {
		r = w.start(in(dir))
	}
	sleep(time.Minute) // it writes its mark over what it met, and nothing more
	writes := w.writes()
	sleep(3 * time.Hour)
	if n := w.writes() - writes; n != 0 {
		t.Errorf("it wrote %d times", n)
	}
	if f := w.manifest().Frozen; f == nil || f.Generation != seen.Generation || f.Lineage != seen.Lineage || !strings.Contains(f.Reason, says) {
		t.Errorf("frozen by %+v", f)
	}
	if got := r.rot.Alarms(); len(got) != 1 || got[0].Code != "frozen" || !strings.Contains(got[0].Message, says) {
		t.Errorf("alarms %+v", got)
	}
	if s := r.rot.Status("main").Snapshot; s == nil || s.Generation != seen.Generation || s.WriteID != seen.WriteID {
		t.Errorf("it goes by %+v", s)
	}
	if len(r.accepted) == 0 {
		t.Fatal("it handed on nothing")
	}
	if last := r.accepted[len(r.accepted)-1]; last.Generation != seen.Generation || last.WriteID != seen.WriteID {
		t.Errorf("it handed on generation %d after %d", last.Generation, seen.Generation)
	}
	if _, err := r.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, false); err == nil {
		t.Error("a command goes past the mark")
	}
	w.put(now) // the right one is back: it goes on by itself
	sleep(time.Hour)
	if got := r.alarms(); got != nil || w.manifest().Generation == seen.Generation {
		t.Errorf("with the manifest back: alarms %v, generation %d", got, w.manifest().Generation)
	}
	r.stop()
}

// TestMarkInMemory: without a state directory the mark lasts as long as the process.
func TestMarkInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start()
		sleep(20 * time.Minute)
		older := w.keep()
		sleep(50 * time.Minute)
		w.put(older)
		sleep(10 * time.Minute)
		if got := r.alarms(); !slices.Equal(got, []string{"frozen"}) {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestMarkServesAtStart: with the store down, what was seen last is handed on
// before anything else, and a restart does not lose the manifest.
func TestMarkServesAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t), t.TempDir()
		r := w.start(in(dir))
		sleep(20 * time.Minute)
		r.stop()
		want := w.manifest()
		path := filepath.Join(dir, "main.manifest.json")
		doc, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(doc, w.doc) {
			t.Errorf("the mark is not the manifest:\n%s\n%s", doc, w.doc)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		w.change(func() { w.down = keyring.ErrUnavailable })
		r = w.start(in(dir))
		synctest.Wait()
		if len(r.accepted) != 1 || r.accepted[0].Generation != want.Generation {
			t.Fatalf("handed on %v", r.accepted)
		}
		if s := r.rot.Status("main"); s.Snapshot == nil || !s.ReadAt.IsZero() {
			t.Errorf("status %+v: nothing was read yet", s)
		}
		w.change(func() { w.down = nil })
		sleep(15 * time.Second)
		if s := r.rot.Status("main"); s.ReadAt.IsZero() || s.Alarms != nil {
			t.Errorf("status %+v", s)
		}
		sleep(time.Hour)
		w.wantWhole()
		r.stop()
	})
}

func TestMarkThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	for name, make := range map[string]func(path string) error{
		"corrupt":     func(path string) error { return os.WriteFile(path, []byte("{"), 0o600) },
		"empty":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		dir := t.TempDir()
		if err := make(filepath.Join(dir, "main.manifest.json")); err != nil {
			t.Fatal(err)
		}
		if _, err := w.try(in(dir)); err == nil || !strings.Contains(err.Error(), `issuer "main": `) || !strings.Contains(err.Error(), "high-water mark") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.try(in(filepath.Join(t.TempDir(), "not", "there", "yet"))); err != nil {
		t.Errorf("a state directory that does not exist yet: %v", err)
	}
}

// TestMarkThatCannotBeWritten: the mark in memory holds, and metrics hear of it.
func TestMarkThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.start(in(filepath.Join(t.TempDir(), "not", "there")))
		sleep(20 * time.Minute)
		w.wantWhole()
		r.rec.Lock()
		heard := slices.Clone(r.errors)
		r.rec.Unlock()
		if len(heard) == 0 || !strings.HasPrefix(heard[0], "mark: ") {
			t.Errorf("metrics heard of %q", heard)
		}
		older := w.keep()
		sleep(50 * time.Minute)
		w.put(older)
		sleep(10 * time.Minute)
		if got := r.alarms(); !slices.Equal(got, []string{"frozen", "mark_not_kept"}) {
			t.Errorf("alarms %v", got)
		}
		r.stop()
	})
}

// TestHalvesWithoutAManifest: one was lost, and a new lineage would make the
// old tokens unverifiable.
func TestHalvesWithoutAManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.halves["left"] = true
		r := w.start()
		sleep(time.Hour)
		if f := w.manifest().Frozen; f == nil || f.Lineage != "" || w.writes() != 1 {
			t.Fatalf("frozen by %+v, %d writes", f, w.writes())
		}
		if got := r.rot.Alarms(); len(got) != 1 || got[0].Code != "frozen" || !strings.Contains(got[0].Message, "but 1 private halves of the issuer exist in vaultkv: restore the manifest") {
			t.Errorf("alarms %+v", got)
		}
		r.stop()
		// An operator takes away the mark, and the manifest that was written.
		w.put(stored{})
		w.change(func() {
			w.hook = func(op string, _ *replica) fault {
				if op == "list" {
					return fails
				}
				return works
			}
		})
		r = w.start()
		sleep(time.Minute)
		if got := r.alarms(); w.doc != nil || !slices.Equal(got, []string{"store_unavailable"}) {
			t.Errorf("without knowing what halves there are: wrote %v, alarms %v", w.doc != nil, got)
		}
		w.change(func() { w.hook = nil; delete(w.halves, "left") })
		sleep(20 * time.Minute)
		w.wantWhole()
		r.stop()
	})
}

// TestFrozenAndNewer: both roles leave such a manifest alone and say why; a
// frozen one does not count as read. I12.
func TestFrozenAndNewer(t *testing.T) {
	for _, tc := range []struct {
		name, code string
		doc        func(t *testing.T, doc []byte) []byte
		counts     bool
	}{
		{"frozen", "frozen", func(t *testing.T, doc []byte) []byte {
			return changed(t, doc, func(s *keyring.Snapshot) {
				s.Generation++
				s.Frozen = &keyring.Frozen{At: time.Now(), Reason: "restored", Lineage: s.Lineage, Generation: 99}
			})
		}, false},
		{"newer schema", "manifest_schema", func(t *testing.T, doc []byte) []byte {
			doc = changed(t, doc, func(s *keyring.Snapshot) { s.Generation++ })
			return bytes.Replace(doc, []byte(`{"schema":1,`), []byte(`{"schema":2,"novel":1,`), 1)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, dir := newWorld(t), t.TempDir()
				writer := w.start(in(dir))
				reader := w.start(func(c *rotator.Config) { c.Advance = false })
				sleep(20 * time.Minute)
				before := w.manifest().Generation
				w.change(func() { w.doc, w.version = tc.doc(t, w.doc), w.version+1 })
				writes := w.writes()
				sleep(2 * time.Hour)
				if w.writes() != writes {
					t.Error("somebody wrote")
				}
				want := before
				if tc.counts {
					want++
				}
				for who, r := range map[string]*replica{"writer": writer, "reader": reader} {
					if got := r.alarms(); !slices.Equal(got, []string{tc.code}) {
						t.Errorf("%s: alarms %v", who, got)
					}
					if got := r.rot.Status("main").Snapshot.Generation; got != want {
						t.Errorf("%s goes by generation %d, want %d", who, got, want)
					}
				}
				for _, dry := range []bool{false, true} {
					if _, err := writer.rot.Command(t.Context(), keyring.Command{Rotate: "web"}, dry); err == nil || !strings.Contains(err.Error(), "the manifest") {
						t.Errorf("a command (dry %v) is answered with %v", dry, err)
					}
				}
				writer.stop()
				reader.stop()
			})
		})
	}
}
