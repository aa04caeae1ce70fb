package publisher_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
)

// Past serve_until of the set that was read back the file is taken away; with
// the next snapshot it comes back, and that is no drift.
func TestFileIsTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "jwks.json")
		h := startFile(t, path)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now(), 1, key))
		rest(lease + tail - time.Second)
		wantSet(t, path, key)
		h.wantCodes(t)
		rest(2 * time.Second)
		wantGone(t, path)
		h.wantCodes(t, "serve_expired!")
		rest(time.Hour)
		h.wantCodes(t, "serve_expired!")
		if since := h.Alarms()[0].Since; time.Since(since) < time.Hour {
			t.Errorf("the alarm stands since %s, now %s", since, time.Now())
		}

		h.accept(snapshot(time.Now(), 2, key))
		wantSet(t, path, key)
		h.wantCodes(t)
		if h.events.drifted.Load() != 0 {
			t.Error("what keyturn took away itself was counted as drift")
		}
	})
}

// A restart honours serve_until before any snapshot arrives: the store may be
// down for longer than the set may be served.
func TestRestartHonoursServeUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		key := newKey(t, keyring.ES256)
		first := startFile(t, path)
		first.accept(snapshot(time.Now(), 1, key))
		first.stop()
		rest(time.Hour)

		second := startFile(t, path)
		second.wantCodes(t)
		wantSet(t, path, key)
		rest(time.Hour)
		wantSet(t, path, key)
		second.stop()
		rest(tail)

		third := startFile(t, path)
		wantGone(t, path)
		third.wantCodes(t, "serve_expired!")
	})
}

// A target that another lineage took away is free, and only then.
func TestTargetOfADeadLineage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		dead := startFile(t, path)
		s := snapshot(time.Now(), 50, newKey(t, keyring.ES256))
		s.Lineage = "lineage-dead"
		dead.accept(s)
		dead.stop()

		h := startFile(t, path)
		key := newKey(t, keyring.ES256)
		h.accept(snapshot(time.Now().Add(24*time.Hour), 1, key))
		h.wantCodes(t, "publish_refused!")
		rest(lease + tail + interval)
		h.wantCodes(t, "publish_refused!")
		h.stop()

		startFile(t, path).stop() // knows no lineage: the set's time is over all the same
		wantGone(t, path)
		h = startFile(t, path)
		h.accept(snapshot(time.Now(), 1, key))
		wantSet(t, path, key)
		h.wantCodes(t)
	})
}

// An edited file is taken away all the same.
func TestEditedFileIsTakenAwayAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		first := startFile(t, path)
		first.accept(snapshot(time.Now(), 1, newKey(t, keyring.ES256)))
		first.stop()
		write(t, path, "edited")
		second := startFile(t, path)
		rest(5 * interval)
		second.wantCodes(t, "publish_failed!", "target_drift")
		if got := second.events.drifted.Load(); got != 1 {
			t.Errorf("one edit that cannot be repaired was counted %d times", got)
		}
		rest(lease + tail)
		wantGone(t, path)
	})
}

// crashed leaves the files as a kill between the two writes of generation 2
// leaves them: with the old file, or with the new one.
func crashed(t *testing.T, path string, withNew bool, one, two *keyring.Snapshot) {
	t.Helper()
	h := startFile(t, path)
	h.accept(one)
	old, err := os.ReadFile(path)
	must(t, err)
	h.accept(two)
	h.stop()
	if !withNew {
		write(t, path, string(old))
	}
	write(t, filepath.Dir(path)+"/.jwks.json.ABCDEFGHIJKLM.tmp", "half a s")
	write(t, filepath.Dir(path)+"/.jwks.json.keyturn.ABCDEFGHIJKLM.tmp", "half a s")
}

func TestCrashBetweenTheTwoWrites(t *testing.T) {
	for name, withNew := range map[string]bool{"before the file": false, "after the file": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "jwks.json")
				a, b := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
				one := snapshot(time.Now(), 1, a)
				two := snapshot(time.Now().Add(time.Minute), 2, a, b)
				crashed(t, path, withNew, one, two)
				if side := readSide(t, path); len(side.Sets) != 2 {
					t.Fatalf("side file %+v does not list both sets", side)
				}

				h := startFile(t, path)
				wantDir(t, dir, "jwks.json", "jwks.json.keyturn", "jwks.json.keyturn.lock")
				want, gen := one, uint64(1)
				if withNew {
					want, gen = two, 2
				}
				if st := h.status(t, "file"); !st.ServeUntil.Equal(want.ServeUntil()) || st.Err != nil {
					t.Errorf("it is served until %s (%v), want %s", st.ServeUntil, st.Err, want.ServeUntil())
				}
				// The persisted snapshot of a replica that had not seen the second.
				h.accept(one)
				if st := h.status(t, "file"); st.Generation != gen {
					t.Errorf("generation %d, want %d", st.Generation, gen)
				}
				if withNew {
					h.wantCodes(t, "target_ahead!")
					wantSet(t, path, a, b)
				} else {
					h.wantCodes(t)
					wantSet(t, path, a)
				}
				h.accept(two)
				wantSet(t, path, a, b)
				h.wantCodes(t)
				if h.events.drifted.Load() > 0 {
					t.Error("a crash was counted as drift")
				}
			})
		})
	}
}

// A publisher with an older view never sets the file back, whoever is faster,
// and a reader always finds a whole set.
func TestGenerationNeverFalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "jwks.json")
	const generations = 60
	keys := make([]keyring.JWK, generations+1)
	number := map[string]uint64{}
	snaps := make([]*keyring.Snapshot, generations+1)
	active := newKey(t, keyring.ES256)
	for g := uint64(1); g <= generations; g++ {
		keys[g] = newKey(t, keyring.ES256)
		number[keys[g].Kid] = g
		snaps[g] = snapshot(time.Now(), g, active, keys[g])
	}
	var fleet []*harness
	for range 3 {
		fleet = append(fleet, start(t, publisher.Config{Interval: 20 * time.Millisecond}, fileTarget(path)))
	}
	fleet[0].Accept("main", snaps[1])
	eventually(t, "the first set was published", func() bool { _, err := os.Stat(path); return err == nil })

	done := make(chan struct{})
	var readers, feeders sync.WaitGroup
	readers.Go(func() {
		newest := uint64(0)
		for {
			doc, err := os.ReadFile(path)
			var set keyring.JWKSet
			if err == nil {
				err = json.Unmarshal(doc, &set)
			}
			if err != nil || len(set.Keys) != 2 {
				t.Errorf("torn or missing: %q (%v)", doc, err)
				return
			}
			got := max(number[set.Keys[0].Kid], number[set.Keys[1].Kid])
			if got < newest {
				t.Errorf("generation fell from %d to %d", newest, got)
				return
			}
			newest = got
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for i, h := range fleet {
		feeders.Go(func() {
			for g := 1 + i; g <= generations; g += len(fleet) { // each misses what the others see
				h.Accept("main", snaps[g])
				time.Sleep(time.Duration(1+(g*7+i*5)%6) * time.Millisecond)
			}
		})
	}
	feeders.Wait()
	eventually(t, "the last generation stood in the file", func() bool {
		doc, err := os.ReadFile(path)
		var set keyring.JWKSet
		return err == nil && json.Unmarshal(doc, &set) == nil && slices.ContainsFunc(set.Keys, func(k keyring.JWK) bool { return k.Kid == keys[generations].Kid })
	})
	eventually(t, "the slower ones saw that they are behind", func() bool {
		behind := 0
		for _, h := range fleet {
			if slices.Contains(h.codes(), "target_ahead!") {
				behind++
			}
		}
		return behind == 2
	})
	close(done)
	readers.Wait()
	for _, h := range fleet {
		if n := h.events.drifted.Load(); n > 0 {
			t.Errorf("a race between publishers was counted as drift %d times", n)
		}
		h.stop()
	}
	wantDir(t, filepath.Dir(path), "jwks.json", "jwks.json.keyturn", "jwks.json.keyturn.lock")
}

// No set is better than an empty one, and than one with a revoked key.
func TestViewsAndEmptySets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		target := fileTarget(path)
		target.View = keyring.ViewKubernetes
		h := start(t, publisher.Config{Interval: interval}, target)
		ec, ed := newKey(t, keyring.ES256), newKey(t, keyring.EdDSA)
		h.accept(snapshot(time.Now(), 1, ec, ed))
		wantSet(t, path, ec)
		h.wantConfirmed(t, "file", ec, ed) // what the view leaves out keeps nobody waiting
		h.wantCodes(t)

		s := snapshot(time.Now(), 2, ed, ec)
		s.Keys[1].Revoked = time.Now()
		h.accept(s)
		wantGone(t, path)
		h.wantCodes(t, "publish_refused!")

		// The manifest says which view holds, not this replica's file.
		s = snapshot(time.Now(), 3, ed, ec)
		s.Config.Targets = []keyring.Target{{Name: "file", Kind: keyring.TargetFile}}
		h.accept(s)
		wantSet(t, path, ec, ed)
		if h.status(t, "file").Required {
			t.Error("required by the file, not by the manifest")
		}
	})
}

// What must not be published: an issuer that has no keys yet, a frozen
// manifest, a snapshot past its time, an older one.
func TestWhatIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		h := startFile(t, path)
		a, b := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		born := snapshot(time.Now(), 1, a)
		born.Keys = nil
		h.accept(born)
		h.wantCodes(t, "not_published!")

		h.accept(snapshot(time.Now().Add(-lease-tail), 2, a))
		h.wantCodes(t, "not_published!")
		wantDir(t, filepath.Dir(path), "jwks.json.keyturn.lock")

		h.accept(snapshot(time.Now(), 4, a))
		wantSet(t, path, a)
		h.accept(snapshot(time.Now(), 3, a, b))
		frozen := snapshot(time.Now(), 5, a, b)
		frozen.Frozen = &keyring.Frozen{At: time.Now(), Reason: "restored"}
		h.accept(frozen)
		rest(3 * interval)
		wantSet(t, path, a)
		h.wantCodes(t)
	})
}
