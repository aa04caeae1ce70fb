package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	names "github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/local"
	"github.com/keyturn/keyturn/keyring"
)

// heads is a local custody whose saves may fail, persisted or not.
type heads struct {
	*local.Custody
	fail, persist bool
	loads, saves  atomic.Int32
}

func (h *heads) LoadHeads(ctx context.Context, r names.Replica) ([]byte, int, error) {
	h.loads.Add(1)
	return h.Custody.LoadHeads(ctx, r)
}

func (h *heads) SaveHeads(ctx context.Context, r names.Replica, doc []byte, version int) error {
	h.saves.Add(1)
	var err error
	if !h.fail || h.persist {
		err = h.Custody.SaveHeads(ctx, r, doc, version)
	}
	if h.fail {
		return errors.Join(err, keyring.ErrUnavailable)
	}
	return err
}

// anchored is a log with its anchors at two issuers.
func anchored(t *testing.T, dir string, store *heads) *anchors {
	t.Helper()
	l, err := audit.Open(filepath.Join(dir, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &anchors{
		log: func() *audit.Log { return l }, store: store, replica: "host", issuers: []string{"main", "other"}, interval: time.Minute,
		logger: slog.New(slog.DiscardHandler), last: map[string]audit.Head{}, faults: map[string]anchorFault{},
	}
}

func newHeads(t *testing.T) *heads {
	t.Helper()
	c, err := local.Open(local.Config{Dir: filepath.Join(t.TempDir(), "custody"), Key: bytes.Repeat([]byte{1}, local.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &heads{Custody: c}
}

func (a *anchors) write(t *testing.T, n int) {
	t.Helper()
	for range n {
		if err := a.log().Append(t.Context(), audit.Record{Decision: audit.Allow}); err != nil {
			t.Fatal(err)
		}
	}
}

func (a *anchors) stored(t *testing.T, issuer string) audit.Anchors {
	t.Helper()
	doc, _, err := a.store.LoadHeads(t.Context(), names.Replica{Issuer: issuer, Name: a.replica})
	if err != nil || doc == nil {
		t.Fatalf("anchors of %s: %q, %v", issuer, doc, err)
	}
	got, err := audit.ParseAnchors(doc)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func alarmCodes(a *anchors, now time.Time) string {
	var out []string
	for _, alarm := range a.Alarms(now) {
		out = append(out, alarm.Issuer+":"+alarm.Code)
	}
	return strings.Join(out, " ")
}

func TestAnchorsFollowTheLog(t *testing.T) {
	store, dir := newHeads(t), t.TempDir()
	a := anchored(t, dir, store)
	a.round(t.Context(), time.Minute)
	if store.saves.Load() != 0 {
		t.Error("a log without a record was anchored")
	}
	a.write(t, 3)
	for range 3 {
		a.round(t.Context(), time.Minute)
	}
	if store.saves.Load() != 2 || store.loads.Load() != 4 { // of which two without a record
		t.Errorf("%d loads, %d saves, want one at each issuer: nothing new was written", store.loads.Load(), store.saves.Load())
	}
	a.write(t, 2)
	a.round(t.Context(), time.Minute)
	if got := a.stored(t, "other"); len(got.Heads) != 2 || got.Heads[1].Seq != 5 || got.Replica != "host" {
		t.Errorf("%+v", got)
	}
	// The next process, after one that wrote more than it anchored.
	a.write(t, 2)
	if err := a.log().Close(); err != nil {
		t.Fatal(err)
	}
	a = anchored(t, dir, store)
	a.round(t.Context(), time.Minute)
	if got := a.stored(t, "main"); len(got.Heads) != 3 || got.Heads[2].Seq != 7 || alarmCodes(a, time.Now()) != "" {
		t.Errorf("%+v, alarms %s", got, alarmCodes(a, time.Now()))
	}
}

// TestLastAnchor: what the log still counted is anchored, too.
func TestLastAnchor(t *testing.T) {
	store, dir := newHeads(t), t.TempDir()
	a := anchored(t, dir, store)
	for range 200 {
		if err := a.log().Append(t.Context(), audit.Record{Decision: audit.Deny}); err != nil {
			t.Fatal(err)
		}
	}
	a.end(t.Context())
	if err := a.log().Close(); err != nil {
		t.Fatal(err)
	}
	r, err := verify.Files([]string{filepath.Join(dir, "audit.jsonl")}, verify.Known{Anchors: a.stored(t, "main").Heads})
	if err != nil || !r.OK() || r.Chains[0].Anchored == nil || r.Chains[0].Anchored.Seq != r.Chains[0].Head.Seq {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestAnchorsThatFail: an error that was none is found out, one that lasts is told.
func TestAnchorsThatFail(t *testing.T) {
	store := newHeads(t)
	a := anchored(t, t.TempDir(), store)
	store.fail = true
	for _, store.persist = range []bool{false, true} {
		a.write(t, 1)
		a.round(t.Context(), time.Minute)
	}
	soon, late := time.Now().Add(9*time.Minute), time.Now().Add(11*time.Minute)
	if got := alarmCodes(a, soon); got != "" {
		t.Errorf("after nine minutes: %s", got)
	}
	if got := alarmCodes(a, late); got != "main:audit_not_anchored other:audit_not_anchored" {
		t.Errorf("after eleven minutes: %s", got)
	}
	store.fail = false
	a.write(t, 1)
	a.round(t.Context(), time.Minute)
	if got := a.stored(t, "main"); len(got.Heads) != 2 || got.Heads[1].Seq != 3 || alarmCodes(a, late) != "" {
		t.Errorf("%+v, alarms %s", got, alarmCodes(a, late))
	}
}

// TestAnchorsAhead: whatever is anchored that the log does not hold stays, and
// is told at once.
func TestAnchorsAhead(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, log string, store *heads){
		"cut": func(t *testing.T, log string, _ *heads) {
			info, err := os.Stat(log)
			if err == nil {
				err = os.Truncate(log, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, log string, _ *heads) {
			if err := errors.Join(os.Remove(log), os.Remove(log+".lock")); err != nil {
				t.Fatal(err)
			}
		},
		"changed there": func(t *testing.T, _ string, store *heads) {
			for _, issuer := range []string{"main", "other"} {
				place := names.Replica{Issuer: issuer, Name: "host"}
				doc, version, err := store.LoadHeads(t.Context(), place)
				if err != nil {
					t.Fatal(err)
				}
				doc = bytes.Replace(doc, []byte(`"seq":4`), []byte(`"seq":3`), 1)
				if err := store.SaveHeads(t.Context(), place, doc, version); err != nil {
					t.Fatal(err)
				}
			}
		},
		"no anchors": func(t *testing.T, _ string, store *heads) {
			for _, issuer := range []string{"main", "other"} {
				place := names.Replica{Issuer: issuer, Name: "host"}
				_, version, err := store.LoadHeads(t.Context(), place)
				if err == nil {
					err = store.SaveHeads(t.Context(), place, []byte("hello"), version)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, dir := newHeads(t), t.TempDir()
			a := anchored(t, dir, store)
			a.write(t, 4)
			a.end(t.Context())
			if err := a.log().Close(); err != nil {
				t.Fatal(err)
			}
			harm(t, filepath.Join(dir, "audit.jsonl"), store)
			place := names.Replica{Issuer: "main", Name: "host"}
			before, _, err := store.LoadHeads(t.Context(), place)
			if err != nil {
				t.Fatal(err)
			}
			a = anchored(t, dir, store)
			for range 3 {
				a.round(t.Context(), time.Minute)
				if got := alarmCodes(a, time.Now()); got != "main:audit_behind other:audit_behind" {
					t.Errorf("alarms %q", got)
				}
				a.write(t, 5)
			}
			if after, _, err := store.LoadHeads(t.Context(), place); err != nil || !bytes.Equal(before, after) {
				t.Errorf("%s became %s, %v", before, after, err)
			}
			a.replica = "host-1b"
			a.round(t.Context(), time.Minute)
			if got := alarmCodes(a, time.Now()); got != "" {
				t.Errorf("under a new name: %s", got)
			}
		})
	}
}
