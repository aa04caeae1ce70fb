package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// queued starts callers while the turn is taken, and returns when all of them wait.
func queued(t *testing.T, l *Log, n int, call func(i int) error) (release func() []error) {
	t.Helper()
	l.turn <- struct{}{}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = call(i) })
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.Lock()
		have := len(l.waiting)
		l.mu.Unlock()
		if have == n {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d callers wait, want %d", have, n)
		}
	}
	return func() []error {
		<-l.turn
		wg.Wait()
		return errs
	}
}

// writes is how many write calls this process has made.
func writes(t *testing.T) (n int) {
	t.Helper()
	doc, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "syscw: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestGroup: those who wait share a write.
func TestGroup(t *testing.T) {
	const callers = 200
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	release := queued(t, l, callers, func(i int) error { return l.Append(t.Context(), signed(fmt.Sprint(i))) })
	before := writes(t)
	for _, err := range release() {
		if err != nil {
			t.Error(err)
		}
	}
	if n := writes(t) - before; n > callers/4 { // those of the runtime among them
		t.Errorf("%d writes for %d callers", n, callers)
	}
	if n := wholeLog(t, path); n != callers {
		t.Errorf("%d records", n)
	}
}

// TestGroupFails: no caller of a group is told that its record is kept, and
// none is.
func TestGroupFails(t *testing.T) {
	dir := tinyDisk(t)
	path, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 20<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, path)
	mustAppend(t, l, "before")
	release := queued(t, l, 16, func(i int) error { // more than there is room for
		return l.Append(t.Context(), Record{JTI: fmt.Sprint(i), Reason: strings.Repeat("r", 2000)})
	})
	for i, err := range release() {
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("caller %d: %v, want ENOSPC", i, err)
		}
	}
	batch := []Record{{JTI: "a"}, {JTI: "b", Reason: strings.Repeat("r", 30000)}}
	if err := l.AppendAll(t.Context(), batch); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("AppendAll = %v, want ENOSPC", err)
	}
	if diff := cmp.Diff([]string{"before"}, jtis(t, path)); diff != "" {
		t.Errorf("after the failures (-want +got):\n%s", diff)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	batch[1].Reason = ""
	if err := l.AppendAll(t.Context(), batch); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"before", "a", "b"}, jtis(t, path)); diff != "" {
		t.Errorf("with room again (-want +got):\n%s", diff)
	}
	wholeLog(t, path)
}

func TestAppendAllRefusesAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	bad := Record{ExpiresAt: time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)}
	if err := l.AppendAll(t.Context(), []Record{{JTI: "1"}, bad}); !errors.Is(err, errYear) {
		t.Errorf("AppendAll = %v", err)
	}
	if err := l.AppendAll(t.Context(), nil); err != nil {
		t.Errorf("AppendAll of nothing = %v", err)
	}
	mustAppend(t, l, "2")
	if diff := cmp.Diff([]string{"2"}, jtis(t, path)); diff != "" {
		t.Error(diff)
	}
}

// TestAppendInAWriteThatHangs: the context ends the wait for a write of another
// caller that holds our record, too.
func TestAppendInAWriteThatHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	release := queued(t, l, 1, func(int) error { return l.Append(ctx, Record{JTI: "hangs"}) })
	l.mu.Lock()
	taken := l.waiting // as a leader takes it
	l.waiting = nil
	l.mu.Unlock()
	cancel()
	for deadline := time.Now().Add(30 * time.Second); len(l.turn) > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if l.free.Get() == nil {
			break
		}
	}
	if errs := release(); !errors.Is(errs[0], context.Canceled) || !strings.Contains(errs[0].Error(), "has begun") {
		t.Errorf("Append = %v", errs[0])
	}
	mustAppend(t, l, "after") // what was taken is not used again
	if string(taken[0].buf) == "" || !strings.Contains(string(taken[0].buf), "hangs") {
		t.Errorf("the record of the hanging write became %q", taken[0].buf)
	}
}

func TestHarm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	mustAppend(t, l, "1")
	mustAppend(t, l, "2")
	if err := l.Harm(t.Context()); err != nil {
		t.Errorf("of a sound log: %v", err)
	}
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "3")
	if err := l.Harm(t.Context()); err == nil || !strings.Contains(err.Error(), "copytruncate") {
		t.Errorf("of a log that was cut: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Harm(t.Context()); err == nil || !strings.Contains(err.Error(), "removed") {
		t.Errorf("of a log that was removed: %v", err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "4")
	if err := l.Harm(t.Context()); err != nil {
		t.Errorf("of a new file: %v", err)
	}
}

func TestHead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	if h, err := l.Head(t.Context()); err != nil || h.Seq != 0 {
		t.Errorf("of an empty log: %+v, %v", h, err)
	}
	mustAppend(t, l, "1")
	mustAppend(t, l, "2")
	h, err := l.Head(t.Context())
	if err != nil || h.Seq != 2 || h.File != path || h.Time.IsZero() || h.check() != nil {
		t.Errorf("of two records: %+v, %v", h, err)
	}
	if doc, err := os.ReadFile(path); err != nil || !strings.HasSuffix(string(doc), `"hash":"`+h.Hash+"\"}\n") {
		t.Errorf("the log ends in %q, %v; its head is %+v", doc, err, h)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Head(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("of a closed log: %v", err)
	}
}

func TestAnchors(t *testing.T) {
	var a Anchors
	if _, ok := a.Last(); ok {
		t.Error("anchors of nothing have a last head")
	}
	for i := range uint64(100) {
		a = a.With("host", Head{Chain: "C", Seq: i + 1, Hash: strings.Repeat("a", 64)})
	}
	doc, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseAnchors(doc)
	if err != nil {
		t.Fatal(err)
	}
	if last, ok := back.Last(); !ok || last.Seq != 100 || len(back.Heads) != 64 || back.Heads[0].Seq != 37 || back.Replica != "host" {
		t.Errorf("%+v", back)
	}
	for _, bad := range []string{"", "[]", `{"schema":2}`, `{"schema":1,"heads":[{}]}`, `{"schema":1,"heads":[{"chain":"C","seq":1,"hash":"zz"}]}`} {
		if _, err := ParseAnchors([]byte(bad)); !errors.Is(err, ErrAnchors) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
