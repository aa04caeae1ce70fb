package verify

import (
	"errors"
	"os"
	"strings"
	"testing"
)

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

// TestChainAfterALostNewline: the record is there, for the log and for the
// auditor, also where it is the last of a rotated file or an anchored one.
func TestChainAfterALostNewline(t *testing.T) {
	j := newJournal(t, t.TempDir())
	cut := func() {
		t.Helper()
		j.anchor()
		j.must(j.log.Close())
		info, err := os.Stat(j.path)
		j.must(err)
		j.must(os.Truncate(j.path, info.Size()-1))
		wantWhole(t, j.verify(j.heads...))
		j.open()
	}
	j.append(2)
	cut()
	j.append(2)
	cut()
	if holds, known, err := Holds(j.path, j.heads[1]); err != nil || !holds || !known {
		t.Errorf("the last record: %v, %v, %v", holds, known, err)
	}
	j.rotate()
	j.append(1)
	r := j.verify(j.heads...)
	if wantWhole(t, r); r.Records != 5 || len(r.Chains) != 1 || r.Chains[0].Head.Seq != 5 {
		t.Errorf("%+v", r)
	}
}
