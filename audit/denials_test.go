package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func refusal(uid uint32, profile string) Record {
	return Record{Event: EventSign, Decision: Deny, Code: "forbidden", Socket: "default", UID: uid, GID: uid, Profile: profile, Reason: "no"}
}

// refusals counts a log's refusals, and the records that they take.
func refusals(t *testing.T, paths ...string) (count, records int) {
	t.Helper()
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var r Record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			if r.Decision == Deny {
				count, records = count+max(1, r.Count), records+1
			}
			if r.Count > 0 && (r.First.IsZero() || r.First.After(r.Time)) {
				t.Errorf("first %v, last %v", r.First, r.Time)
			}
		}
	}
	return count, records
}

func wantRefusals(t *testing.T, count, atMost int, paths ...string) {
	t.Helper()
	if n, records := refusals(t, paths...); n != count || records > atMost {
		t.Errorf("%d refusals in %d records, want %d in at most %d", n, records, count, atMost)
	}
}

func deny(t *testing.T, l *Log, r Record) {
	t.Helper()
	if err := l.Append(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func inBubble(t *testing.T, f func(t *testing.T, l *Log, path string)) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "audit.jsonl")
		f(t, mustOpen(t, path), path)
	})
}

// TestRefusalThatTakesBack: a refusal with a jti takes back an allow that is in
// the log already. It is never one among many.
func TestRefusalThatTakesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Log, path string) {
		for range 10 * burst {
			r := refusal(7, "x")
			r.JTI = "taken-back"
			deny(t, l, r)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(data), `"jti":"taken-back"`); n != 10*burst {
			t.Errorf("%d of %d were written by themselves", n, 10*burst)
		}
	})
}

func TestFloodOfOne(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Log, path string) {
		for range 10_000 {
			deny(t, l, refusal(7, "x"))
		}
		deny(t, l, refusal(8, "x"))
		mustAppend(t, l, "allowed")
		wantRefusals(t, burst+1, burst+1, path) // what is allowed, or another's, does not wait
		time.Sleep(flushEvery + time.Second)
		wantRefusals(t, 10_001, burst+2, path)
		wholeLog(t, path)
		for range 100 * 10 { // ten in a second, for a hundred seconds
			deny(t, l, refusal(7, "x"))
			time.Sleep(time.Second / 10)
		}
		time.Sleep(flushEvery)
		wantRefusals(t, 11_001, burst+2+6+100+21, path)
	})
}

func TestFloodOfManyKinds(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Log, path string) {
		for i := range 5_000 {
			deny(t, l, refusal(7, fmt.Sprint("made-up-", i)))
		}
		time.Sleep(flushEvery + time.Second)
		wantRefusals(t, 5_000, burst+kinds+1, path)
	})
}

func TestFloodOfManyCallers(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Log, path string) {
		for i := range uint32(5_000) {
			for range 3 {
				deny(t, l, refusal(i, "x"))
			}
		}
		if n := len(l.denials.callers); n > maxCallers+1 {
			t.Errorf("%d callers are remembered", n)
		}
		time.Sleep(flushEvery + time.Second)
		wantRefusals(t, 15_000, 3*maxCallers+burst+kinds+1, path)
		time.Sleep(time.Hour)
		deny(t, l, refusal(1<<20, "x"))
		if n := len(l.denials.callers); n > 1 {
			t.Errorf("%d callers are remembered after an hour", n)
		}
	})
}

func TestFloodAndReopenAndClose(t *testing.T) {
	inBubble(t, func(t *testing.T, l *Log, path string) {
		for range 100 {
			deny(t, l, refusal(7, "x"))
		}
		if err := errors.Join(os.Rename(path, path+".1"), l.Reopen()); err != nil {
			t.Fatal(err)
		}
		wantRefusals(t, 100, burst+1, path+".1")
		for range 50 {
			deny(t, l, refusal(7, "x"))
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantRefusals(t, 50, 1, path)
		if err := l.Append(t.Context(), refusal(7, "x")); !errors.Is(err, ErrClosed) {
			t.Errorf("Append = %v, want ErrClosed", err)
		}
	})
}

// TestFloodOnAFullDisk: what could not be written is counted on; until it can
// be, who is refused is told that nothing works.
func TestFloodOnAFullDisk(t *testing.T) {
	dir := tinyDisk(t)
	synctest.Test(t, func(t *testing.T) {
		path, ballast := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "ballast")
		l := mustOpen(t, path)
		const held = 10
		for range held {
			deny(t, l, refusal(7, "x"))
		}
		for _, q := range l.denials.callers {
			q.left = 0 // as after a whole burst, for which this disk has no room
		}
		for range 100 {
			deny(t, l, refusal(7, "x"))
		}
		for full := error(nil); full == nil; full = appendTo(ballast) {
		}
		for l.Append(t.Context(), Record{JTI: "fills"}) == nil { // the last page of the log
		}
		if err := l.Append(t.Context(), refusal(7, "x")); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Append after a write that failed = %v, want ENOSPC", err)
		}
		time.Sleep(flushEvery + time.Second)
		for range 3 * perSecond * int(flushEvery.Seconds()) { // more than may be written one by one
			if err := l.Append(t.Context(), refusal(7, "x")); !errors.Is(err, unix.ENOSPC) {
				t.Errorf("Append = %v, want ENOSPC", err)
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		time.Sleep(flushEvery + time.Second)
		wantRefusals(t, held+100, burst+2, path)
		wholeLog(t, path)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close())
}

// TestFloodsAtOnce: nothing is lost between those who count and those who write.
func TestFloodsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	l := mustOpen(t, path)
	var wg sync.WaitGroup
	for w := range uint32(8) {
		wg.Go(func() {
			for range 500 {
				if err := l.AppendAll(t.Context(), []Record{refusal(w%4, "x"), {JTI: "allowed", Decision: Allow}, refusal(w%4, "y")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wantRefusals(t, 8000, 4*(burst+40)+200, path)
	if n := wholeLog(t, path); n < 4000 {
		t.Errorf("%d records", n)
	}
}
