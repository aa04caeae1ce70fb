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

func wholeLog(t *testing.T, paths ...string) Report {
	t.Helper()
	r, err := Verify(paths, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantWhole(t, r)
	return r
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
	if r := wholeLog(t, path); r.Records != callers {
		t.Errorf("%d records", r.Records)
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

// TestChainGoesOn: over restarts, rotations, and a log that was taken away
// while nobody had it open.
func TestChainGoesOn(t *testing.T) {
	j := newJournal(t, t.TempDir())
	j.restart() // without a record
	j.append(2)
	j.restart()
	j.append(1)
	j.rotate()
	j.restart() // with a new file that is empty still
	j.append(1)
	j.must(j.log.Close())
	j.must(os.Rename(j.path, j.path+".50"))
	j.old = append(j.old, j.path+".50")
	j.open()
	j.append(2)
	r := j.verify()
	if wantWhole(t, r); len(r.Chains) != 1 || r.Chains[0].Head.Seq != 6 {
		t.Errorf("%+v", r)
	}
	if doc, err := os.ReadFile(j.path + ".lock"); err != nil || len(doc) > 0 {
		t.Errorf("the side file keeps %q, %v: after a crash it would be out of date", doc, err)
	}
}

// TestChainAfterDamage: whatever the file ends in, the chain goes on from the
// last record in it, and tells what stands between.
func TestChainAfterDamage(t *testing.T) {
	for name, tc := range map[string]struct {
		add  string
		want int // damages
	}{
		"half a record":   {`{"time":"2026-0`, 0},
		"zeros":           {strings.Repeat("\x00", 100_000), 0},
		"a finished line": {"hello\n", 1},
		"several":         {"hello\n\nyou", 3},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t, t.TempDir())
			j.append(2)
			j.must(j.log.Close())
			f, err := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
			j.must(err)
			_, err = f.WriteString(tc.add)
			j.must(errors.Join(err, f.Close()))
			j.open()
			j.append(2)
			r := j.verify()
			if len(r.Damages) != tc.want || len(r.Chains) != 1 || r.Chains[0].Head.Seq != 5 {
				t.Errorf("%+v", r)
			}
		})
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

func TestHeadAndHolds(t *testing.T) {
	j := newJournal(t, t.TempDir())
	if h, err := j.log.Head(t.Context()); err != nil || h.Seq != 0 {
		t.Errorf("of an empty log: %+v, %v", h, err)
	}
	j.append(3)
	early, err := j.log.Head(t.Context())
	j.must(err)
	j.append(3)
	other := early
	other.Hash = strings.Repeat("a", 64)
	beyond := early
	beyond.Seq = 9
	check := func(what string, h Head, holds, known bool) {
		t.Helper()
		if a, b, err := j.log.Holds(h); err != nil || a != holds || b != known {
			t.Errorf("%s: %v, %v, %v; want %v, %v", what, a, b, err, holds, known)
		}
	}
	check("an early head", early, true, true)
	check("another hash", other, false, true)
	check("beyond", beyond, false, true)
	j.rotate()
	j.append(1)
	check("rotated away", early, false, false)
	j.must(j.log.Close())
	if _, err := j.log.Head(t.Context()); !errors.Is(err, ErrClosed) {
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
