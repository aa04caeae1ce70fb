package publisher_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/publisher"
)

// patience is how long a file may stay ahead of the store.
const patience = 2*interval + time.Minute

// store is what a replica reads: the last snapshot that it was handed, now.
type store struct {
	latest atomic.Pointer[keyring.Snapshot]
}

func (s *store) read(string) (*keyring.Snapshot, time.Time) { return s.latest.Load(), time.Now() }

// follow hands a snapshot to a publisher that reads this store.
func (s *store) follow(h *harness, next *keyring.Snapshot) {
	s.latest.Store(next)
	h.accept(next)
}

func startReading(t *testing.T, path string, read func(string) (*keyring.Snapshot, time.Time)) *harness {
	t.Helper()
	h := start(t, publisher.Config{Interval: interval, Read: read}, fileTarget(path))
	synctest.Wait()
	return h
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	doc, err := os.ReadFile(path)
	must(t, err)
	return doc
}

// forge puts a set of somebody else at the target, with a side file that says
// that it is the issuer's newest for ever.
func forge(t *testing.T, path string, key keyring.JWK) {
	t.Helper()
	set := setOf(t, key)
	write(t, path, string(set))
	write(t, path+".keyturn", fmt.Sprintf(
		`{"format":1,"issuer":"main","lineage":%q,"sets":[{"generation":%d,"serve_until":"9999-12-31T23:59:59Z","sha256":"%x"}]}`,
		lineage, uint64(1)<<63, sha256.Sum256(set)))
}

// A forged side file protects a forged set until the store has been read once
// more, for sure; then it is drift.
func TestForgedSideFileIsDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		var vault store
		h := startReading(t, path, vault.read)
		key, theirs := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
		vault.follow(h, snapshot(time.Now(), 1, key))
		forge(t, path, theirs)
		rest(interval + time.Second)
		h.wantCodes(t, "target_ahead!")
		said := h.Alarms()[0].Message
		vault.follow(h, snapshot(time.Now(), 2, key))
		h.wantCodes(t, "target_ahead!")
		if again := h.Alarms()[0].Message; again != said {
			t.Errorf("the alarm is a new one with each generation: %q, was %q", again, said)
		}
		rest(patience - 2*interval)
		wantSet(t, path, theirs)

		rest(3 * interval)
		wantSet(t, path, key)
		h.wantConfirmed(t, "file", key)
		if side := readSide(t, path); len(side.Sets) != 1 || side.Sets[0].Generation != 2 {
			t.Errorf("side file %+v, want generation 2 alone", side)
		}
		rest(interval)
		h.wantCodes(t)
		if got := h.events.drifted.Load(); got != 1 {
			t.Errorf("drift counted %d times", got)
		}
	})
}

// What a forger renews is not new: the time counts from the first look.
func TestForgedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		var vault store
		h := startReading(t, path, vault.read)
		key := newKey(t, keyring.ES256)
		vault.follow(h, snapshot(time.Now(), 1, key))
		for g := uint64(10); h.events.drifted.Load() == 0 && g < 40; g++ {
			forge(t, path, newKey(t, keyring.ES256))
			doc := strings.Replace(string(mustRead(t, path+".keyturn")), fmt.Sprint(uint64(1)<<63), fmt.Sprint(g), 1)
			write(t, path+".keyturn", doc)
			rest(interval)
		}
		wantSet(t, path, key)
		if got := h.events.drifted.Load(); got != 1 {
			t.Errorf("drift counted %d times", got)
		}
	})
}

// A set that another replica published stays, however long this one cannot
// read the store, and also at the instant at which it has read the newer
// manifest and not yet handed it on.
func TestAheadOfAReplicaThatCannotRead(t *testing.T) {
	for name, read := range map[string]func(old, next *keyring.Snapshot, began time.Time) (*keyring.Snapshot, time.Time){
		"the store is away": func(old, _ *keyring.Snapshot, began time.Time) (*keyring.Snapshot, time.Time) {
			return old, began.Add(patience)
		},
		"nothing was read yet": func(*keyring.Snapshot, *keyring.Snapshot, time.Time) (*keyring.Snapshot, time.Time) {
			return nil, time.Time{}
		},
		"read and not handed on": func(_, next *keyring.Snapshot, _ time.Time) (*keyring.Snapshot, time.Time) {
			return next, time.Now()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "jwks.json")
				a, b := newKey(t, keyring.ES256), newKey(t, keyring.ES256)
				began := time.Now()
				one, two := snapshot(began, 1, a), snapshot(began, 2, a, b)
				slow := startReading(t, path, func(string) (*keyring.Snapshot, time.Time) { return read(one, two, began) })
				slow.accept(one)
				fast := startFile(t, path)
				fast.accept(two)
				rest(30 * time.Minute)
				wantSet(t, path, a, b)
				slow.wantCodes(t, "target_ahead!")
				if got := slow.events.drifted.Load(); got > 0 {
					t.Errorf("an honest set was counted as drift %d times", got)
				}
				slow.accept(two)
				slow.wantCodes(t)
			})
		})
	}
}

// Of two replicas on one file the later one finds it ahead each time that it
// looks, for as long as they run; it never sets it back.
func TestAlwaysOneBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		var first, second store
		fast, slow := startReading(t, path, first.read), startReading(t, path, second.read)
		active := newKey(t, keyring.ES256)
		before := snapshot(time.Now(), 1, active)
		for g := uint64(2); g < 20; g++ {
			standby := newKey(t, keyring.ES256)
			next := snapshot(time.Now(), g, active, standby)
			first.follow(fast, next)
			second.follow(slow, before)
			for range 4 {
				rest(interval)
				wantSet(t, path, active, standby)
				slow.wantCodes(t, "target_ahead!")
			}
			before = next
		}
		if n := fast.events.drifted.Load() + slow.events.drifted.Load(); n > 0 {
			t.Errorf("a race between publishers was counted as drift %d times", n)
		}
	})
}

// The log tells that a target is ahead once, not with every generation.
func TestAheadIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "jwks.json")
		key := newKey(t, keyring.ES256)
		first := startFile(t, path)
		first.accept(snapshot(time.Now(), 1, key))
		first.stop()
		forge(t, path, newKey(t, keyring.ES256))
		var log bytes.Buffer
		p, err := publisher.New(publisher.Config{
			Interval: interval, Logger: slog.New(slog.NewJSONHandler(&log, nil)),
			Issuers: []publisher.Issuer{{Name: "main", URL: "https://tokens.example.com/main", Targets: []publisher.Target{fileTarget(path)}}},
		})
		must(t, err)
		done := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- p.Run(ctx) }()
		for g := uint64(1); g < 10; g++ {
			p.Accept("main", snapshot(time.Now(), g, key))
			rest(interval)
		}
		cancel()
		must(t, <-done)
		lines := 0
		for line := range strings.Lines(log.String()) {
			var e struct{ Level, Code string }
			must(t, json.Unmarshal([]byte(line), &e))
			if e.Code == "target_ahead" && e.Level == "WARN" {
				lines++
			}
		}
		if lines != 1 {
			t.Errorf("%d warnings in 9 generations, want one:\n%s", lines, log.String())
		}
	})
}
