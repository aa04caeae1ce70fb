package verify

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
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
	doc, err := os.ReadFile(j.path + ".lock")
	if want := `{"chain":"","seq":0,"hash":"","writing":{"chain":"` + r.Chains[0].Head.Chain + `","seq":5,"hash":""}}` + "\n"; err != nil || string(doc) != want {
		t.Errorf("the side file keeps %q, %v; want %q", doc, err, want)
	}
}

// killed ends the log as the death of its process does: the side file stays as it is.
func (j *journal) killed() {
	j.t.Helper()
	side, err := os.ReadFile(j.path + ".lock")
	j.must(err)
	j.must(j.log.Close())
	j.must(os.WriteFile(j.path+".lock", side, 0o600))
}

// TestChainGoesOnAfterACrash: the log of a daemon that died is renamed before
// the next start, as logrotate does at boot. The chain goes on from the file that
// was in use, and from no other.
func TestChainGoesOnAfterACrash(t *testing.T) {
	move := func(j *journal, name string) {
		j.t.Helper()
		j.must(os.Rename(j.path, j.path+name))
		j.old = append(j.old, j.path+name)
	}
	for name, tc := range map[string]struct {
		do    func(j *journal)
		whole bool // one chain up to record 7
	}{
		"renamed":     {func(j *journal) { move(j, ".1") }, true},
		"with a date": {func(j *journal) { move(j, "-20260301") }, true},
		"after others": {func(j *journal) {
			j.old = nil
			j.must(os.Rename(j.path, j.path+".90"))
			j.old = append(j.old, j.path+".100", j.path+".90")
		}, true},
		"half a record": {func(j *journal) { move(j, ".1"); addTo(j, j.old[1], `{"time":"2026`) }, true},
		"still there":   {func(j *journal) {}, true},
		"nothing in it": {func(j *journal) { move(j, ".1"); j.must(os.WriteFile(j.path, nil, 0o600)) }, true},
		"an older copy": {func(j *journal) { move(j, ".1"); copyTo(j, j.old[0], j.path+".bak") }, true},
		"a copy that ends before": {func(j *journal) {
			move(j, ".1")
			doc, err := os.ReadFile(j.old[1])
			j.must(err)
			j.must(os.WriteFile(j.path+".bak", doc[:strings.Index(string(doc), "\n")+1], 0o600))
		}, true},
		"another log beside it": {func(j *journal) {
			move(j, ".1")
			j.must(os.Mkdir(filepath.Dir(j.path)+"/other", 0o700))
			other := newJournal(j.t, filepath.Dir(j.path)+"/other")
			other.append(9)
			other.must(other.log.Close())
			copyTo(j, other.path, j.path+"-2")
		}, true},
		"gone":             {func(j *journal) { j.must(os.Remove(j.path)) }, false},
		"packed":           {func(j *journal) { move(j, ".1"); pack(j, j.old[1]) }, false},
		"others' to write": {func(j *journal) { move(j, ".1"); j.must(os.Chmod(j.old[1], 0o622)) }, false},
		"a link": {func(j *journal) {
			j.must(errors.Join(os.Mkdir(j.path+".d", 0o700), os.Rename(j.path, j.path+".d/x"), os.Symlink(j.path+".d/x", j.path+".1")))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t, t.TempDir())
			j.append(3)
			j.rotate()
			j.append(2)
			j.killed()
			tc.do(j)
			j.open()
			j.append(2)
			r := j.verify()
			wantWhole(t, r)
			last := r.Chains[len(r.Chains)-1]
			if whole := len(r.Chains) == 1 && last.Head.Seq == 7 && r.Records == 7; whole != tc.whole {
				t.Errorf("%+v", r)
			}
			if !tc.whole && (len(r.Chains) != 2 || last.From != 1 || last.Head.Seq != 2) {
				t.Errorf("not a chain of its own: %+v", r)
			}
		})
	}
}

// TestChainGoesOnAfterACrashAtARotation: the new file has no record yet.
func TestChainGoesOnAfterACrashAtARotation(t *testing.T) {
	j := newJournal(t, t.TempDir())
	j.append(3)
	j.rotate()
	j.killed()
	j.open()
	j.append(2)
	r := j.verify()
	if wantWhole(t, r); len(r.Chains) != 1 || r.Chains[0].Head.Seq != 5 {
		t.Errorf("%+v", r)
	}
}

func addTo(j *journal, path, text string) {
	j.t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	j.must(err)
	_, err = f.WriteString(text)
	j.must(errors.Join(err, f.Close()))
}

func copyTo(j *journal, from, to string) {
	j.t.Helper()
	doc, err := os.ReadFile(from)
	j.must(err)
	j.must(os.WriteFile(to, doc, 0o600))
}

func pack(j *journal, path string) {
	j.t.Helper()
	doc, err := os.ReadFile(path)
	j.must(err)
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	_, err = w.Write(doc)
	j.must(errors.Join(err, w.Close(), os.WriteFile(path+".gz", buf.Bytes(), 0o600), os.Remove(path)))
	j.old[len(j.old)-1] += ".gz"
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
