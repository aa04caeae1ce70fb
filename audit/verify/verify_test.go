package verify

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyturn/keyturn/audit"
)

// TestVerifyTable: what each mutation is called, with its place and its words.
func TestVerifyTable(t *testing.T) {
	at := func(files [][]line, seq uint64) *line { return &files[0][seq-1] }
	for name, tc := range map[string]struct {
		mutate func(files [][]line)
		want   []string // kind:line:seq, words
	}{
		"changed":                 {func(f [][]line) { at(f, 3).text = strings.Replace(at(f, 3).text, "4711", "4712", 1) }, []string{"changed:3:3 record 3 was changed: its hash is not that of the line"}},
		"last changed":            {func(f [][]line) { at(f, 9).text = strings.Replace(at(f, 9).text, "4711", "4712", 1) }, []string{"changed:9:9 record 9 was changed"}},
		"first changed":           {func(f [][]line) { at(f, 1).text = strings.Replace(at(f, 1).text, "4711", "4712", 1) }, []string{"changed:1:1 record 1 was changed"}},
		"no record":               {func(f [][]line) { at(f, 3).text = "hello" }, []string{"changed:3:3 record 3 was changed: the line is no record any more"}},
		"one dropped":             {func(f [][]line) { f[0] = slices.Delete(f[0], 3, 4) }, []string{"dropped:4:5 1 record between 3 and 5 is missing"}},
		"three dropped":           {func(f [][]line) { f[0] = slices.Delete(f[0], 3, 6) }, []string{"dropped:4:7 3 records between 3 and 7 are missing"}},
		"swapped":                 {func(f [][]line) { f[0][3], f[0][4] = f[0][4], f[0][3] }, []string{"reordered:4:5 record 5 stands before record 4, which it follows and which is at LOG:5"}},
		"moved to front":          {func(f [][]line) { l := f[0][5]; f[0] = slices.Insert(slices.Delete(f[0], 5, 6), 0, l) }, []string{"reordered:1:6 record"}},
		"twice":                   {func(f [][]line) { f[0] = slices.Insert(f[0], 5, f[0][2]) }, []string{"duplicated:6:3 record 3 stands there twice"}},
		"block twice":             {func(f [][]line) { f[0] = slices.Insert(f[0], 6, f[0][2:5]...) }, []string{"duplicated:7:3 records 3 to 5 stand there twice"}},
		"inserted":                {func(f [][]line) { f[0] = slices.Insert(f[0], 4, reseal(`{"x":1`, at(f, 4).Hash, 5, at(f, 4).Chain)) }, []string{"inserted:5:5 record 5 stands there twice, and the chain does not go on from what stands here: it was put there"}},
		"inserted, no seq to fit": {func(f [][]line) { f[0] = slices.Insert(f[0], 4, reseal(`{"x":1`, at(f, 1).Hash, 2, at(f, 4).Chain)) }, []string{"inserted:5:2 record 2 stands there twice"}},
		"inserted before the last": {func(f [][]line) {
			f[0] = slices.Insert(f[0], 8, reseal(`{"x":1`, at(f, 8).Hash, 9, at(f, 4).Chain))
		}, []string{"inserted:10:9 record 9 stands there twice, here and up to "}},
		"foreign chain":       {func(f [][]line) { f[0] = slices.Insert(f[0], 4, reseal(`{"x":1`, digest("0"), 1, "OTHER")) }, nil},
		"replaced":            {func(f [][]line) { f[0][3] = reseal(`{"x":1`, at(f, 4).Prev, 4, at(f, 4).Chain) }, []string{"changed:4:4 record 4 is not the one that record 5 follows: one of them was replaced, and its hash made anew"}},
		"replaced whole":      {func(f [][]line) { f[0][3] = reseal(`{"x":1`, at(f, 1).Hash, 4, at(f, 4).Chain) }, []string{"changed:3:3 record 3 is not the one that record 4 follows"}},
		"two kinds":           {func(f [][]line) { at(f, 2).text = "x"; f[0] = slices.Delete(f[0], 6, 7) }, []string{"changed:2:2 record 2", "dropped:7:8 1 record between 6 and 8"}},
		"changed and dropped": {func(f [][]line) { at(f, 3).text = "x"; f[0] = slices.Delete(f[0], 3, 4) }, []string{"changed:3:3 record 3", "dropped:4:5 1 record between 2 and 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t, memDir(t))
			j.append(9)
			j.must(j.log.Close())
			files := j.lines()
			tc.mutate(files)
			j.write(files)
			r := j.verify()
			var got []string
			for _, d := range r.Damages {
				got = append(got, strings.ReplaceAll(fmt.Sprintf("%s:%d:%d %s", d.Kind, d.Line, d.Seq, d.Message), j.path, "LOG"))
			}
			same := len(got) == len(tc.want)
			for i := range tc.want {
				same = same && strings.HasPrefix(got[i], tc.want[i])
			}
			if !same {
				t.Errorf("damages (-want +got):\n%s", cmp.Diff(tc.want, got))
			}
		})
	}
}

// TestVerifyFiles: rotated files in any order, packed or not, also one alone.
func TestVerifyFiles(t *testing.T) {
	j := newJournal(t, memDir(t))
	for range 3 {
		j.append(4)
		j.rotate()
	}
	j.append(4)
	j.anchor()
	var packed bytes.Buffer
	data, err := os.ReadFile(j.old[0])
	j.must(err)
	w := gzip.NewWriter(&packed)
	_, err = w.Write(data)
	j.must(errors.Join(err, w.Close(), os.WriteFile(j.old[0]+".gz", packed.Bytes(), 0o600)))
	r := verified(t, []string{j.path, j.old[2], j.old[0] + ".gz", j.old[1]}, Known{Anchors: j.heads})
	wantWhole(t, r)
	if diff := cmp.Diff([]string{j.old[0] + ".gz", j.old[1], j.old[2], j.path}, r.Files); diff != "" || r.Records != 16 || r.Chains[0].Anchored == nil {
		t.Errorf("%d records, chains %+v, files (-want +got):\n%s", r.Records, r.Chains, diff)
	}
	r = verified(t, []string{j.old[0], j.old[2]}, Known{})
	wantDamage(t, r, Dropped, j.old[2], 1)
	wantMessage(t, r, "4 records between 4 and 9 are missing; where there is a file between "+j.old[0]+" and "+j.old[2]+", name it, too")
	r = verified(t, []string{j.old[1]}, Known{Anchors: j.heads})
	if wantDamage(t, r, Truncated, "", 0); len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "begins at record 5") {
		t.Errorf("notes %q", r.Notes)
	}
	if _, err := Files([]string{j.path, j.path + ".nothere"}, Known{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestVerifyTwoReplicas: each has its chain, also where their lines were mixed.
func TestVerifyTwoReplicas(t *testing.T) {
	a, b := newJournal(t, memDir(t)), newJournal(t, memDir(t))
	a.append(3)
	b.append(3)
	x, y := a.lines()[0], b.lines()[0]
	mixed := [][]line{{x[0], y[0], y[1], x[1], x[2], y[2]}}
	a.write(mixed)
	if r := a.verify(); !r.OK() || len(r.Chains) != 2 || r.Chains[1].Records != 3 {
		t.Errorf("%+v", r)
	}
}

// TestVerifyAnchors: each head is looked at, not the last alone.
func TestVerifyAnchors(t *testing.T) {
	j := newJournal(t, memDir(t))
	for range 3 {
		j.append(3)
		j.anchor()
	}
	j.append(2)
	r := j.verify(j.heads...)
	wantWhole(t, r)
	if c := r.Chains[0]; c.Anchored == nil || c.Anchored.Seq != 9 || !strings.Contains(strings.Join(r.Notes, ""), "anchored up to record 9: what follows, 2 records") {
		t.Errorf("%+v, notes %q", c, r.Notes)
	}
	other := j.heads[1]
	other.Hash = strings.Repeat("0", 64)
	r = j.verify(j.heads[0], other, j.heads[2])
	wantDamage(t, r, Changed, j.path, 6)
	beyond := j.heads[2]
	beyond.Seq = 40
	r = j.verify(slices.Concat(j.heads, []audit.Head{beyond})...)
	if wantDamage(t, r, Truncated, j.path, 11); !strings.Contains(r.Damages[0].Message, "29 records or more are missing at the end") {
		t.Errorf("%+v", r.Damages)
	}
	old := beyond
	old.Chain = "ANOTHER"
	wantWhole(t, j.verify(append([]audit.Head{old}, j.heads...)...)) // of a log before this one
}

// TestVerifyForgedBeside: records that were made up where no anchor falls. One
// that has to follow an anchored record is held against it; of a chain, or a part
// of one, that no anchor protects, it is said so.
func TestVerifyForgedBeside(t *testing.T) {
	forge := func(chain string, after uint64, prev audit.Digest, n int) (out []byte) {
		for i := range uint64(n) {
			l := reseal(`{"time":"2026-03-01T11:00:00Z","event":"sign","decision":"allow","socket":"s","uid":666,"jti":"forged"`, prev, after+1+i, chain)
			out, prev = append(append(out, l.text...), '\n'), l.Hash
		}
		return out
	}
	j := newJournal(t, memDir(t))
	j.append(4)
	j.anchor()
	j.append(2)
	log, err := os.ReadFile(j.path)
	j.must(err)
	anchored := j.heads[0]
	first := bytes.IndexByte(log, '\n') + 1
	for name, tc := range map[string]struct {
		doc    []byte
		damage Kind
		note   string
	}{
		"behind the anchor":     {forge(anchored.Chain, anchored.Seq, digest("a"), 3), Changed, ""},
		"far behind the anchor": {forge(anchored.Chain, anchored.Seq+100, digest("a"), 3), "", "no anchor falls into records 105 to 107"},
		"another chain":         {slices.Concat(log[:first], forge("ANOTHER", 0, digest("0"), 1), log[first:]), "", "no anchor falls into records 1 to 1"},
	} {
		path := filepath.Join(memDir(t), "log")
		j.must(os.WriteFile(path, tc.doc, 0o600))
		r := verified(t, []string{path}, Known{Anchors: j.heads})
		if tc.damage == "" && len(r.Damages) > 0 || tc.damage != "" && (len(r.Damages) != 1 || r.Damages[0].Kind != tc.damage) {
			t.Errorf("%s: %+v, want %s", name, r.Damages, tc.damage)
		}
		if !strings.Contains(strings.Join(r.Notes, "\n"), tc.note) {
			t.Errorf("%s: notes %q, want %q", name, r.Notes, tc.note)
		}
	}
}

func FuzzVerify(f *testing.F) {
	j := newJournal(f, memDir(f))
	j.append(3)
	j.crash()
	j.append(2)
	j.must(j.log.Close())
	chain := j.verify().Chains[0].Chain
	data, err := os.ReadFile(j.path)
	j.must(err)
	f.Add(data)
	f.Add([]byte("{}\n\n\x1f\x8b"))
	f.Add([]byte("\nA"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		path := filepath.Join(memDir(t), "log")
		if err := os.WriteFile(path, doc, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Files([]string{path}, Known{})
		if err != nil {
			return // packed by another packer
		}
		if bytes.Equal(doc, data) != (r.OK() && r.Records == 6 && len(r.Chains) == 1 && r.Chains[0].Chain == chain) && r.OK() && r.Records >= 6 {
			t.Errorf("another log passes: %+v", r)
		}
		// Whatever stands there, a log can go on behind it.
		l, err := audit.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(t.Context(), audit.Record{JTI: "on"}); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		again, err := Files([]string{path}, Known{})
		if err == nil && len(again.Damages) > len(r.Damages)+1 {
			t.Errorf("before %+v, after %+v", r.Damages, again.Damages)
		}
	})
}

// TestVerifyLongLines: a record may be longer than what is read at once; what is
// longer than any record is one damage, however long.
func TestVerifyLongLines(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(1)
	for _, n := range []int{32<<10 - 700, 32 << 10, 100_000, 900_000} {
		j.must(j.log.Append(t.Context(), audit.Record{Subject: strings.Repeat("s", n)}))
	}
	wantWhole(t, j.verify())
	files := j.lines()
	files[0] = slices.Insert(files[0], 2, line{text: strings.Repeat("x", 5<<20)})
	j.write(files)
	r := j.verify()
	if wantDamage(t, r, Changed, j.path, 3); len(r.Damages) != 1 || r.Records != 5 {
		t.Errorf("%d records, %d damages", r.Records, len(r.Damages))
	}
}

// TestVerifyTornGone: what a record tells of has to be there, byte for byte.
func TestVerifyTornGone(t *testing.T) {
	for name, edit := range map[string]func(files [][]line){
		"gone":    func(f [][]line) { f[0] = slices.Delete(f[0], 2, 3) },
		"changed": func(f [][]line) { f[0][2].text += "x" },
		"another": func(f [][]line) { f[0][2].text = `{"time":"2026-04` },
	} {
		t.Run(name, func(t *testing.T) {
			j := newJournal(t, memDir(t))
			j.append(2)
			j.crash()
			j.append(2)
			j.must(j.log.Close())
			r := j.verify()
			wantWhole(t, r)
			wantNote(t, r, j.path+":3: a write was cut off here, by a crash or by a disk without room, as the record after it tells")
			files := j.lines()
			edit(files)
			j.write(files)
			if r := j.verify(); !slices.ContainsFunc(r.Damages, func(d Damage) bool {
				return strings.Contains(d.Message, "do not stand before it any more") && d.Seq == 3
			}) {
				t.Errorf("%+v", r.Damages)
			}
		})
	}
}

// TestVerifyHalf: half a record at the end, of which no record tells, may be a
// crash's or somebody's work, and verify does not decide.
func TestVerifyHalf(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(3)
	j.anchor()
	j.must(j.log.Close())
	files := j.lines()
	files[0][2].text, files[0][2].open = files[0][2].text[:100], true
	j.write(files)
	r := j.verify()
	wantWhole(t, r)
	wantNote(t, r, j.path+":3: a write was cut off here", "or by somebody who cut the file", "nothing in the log tells which")
	r = j.verify(j.heads...)
	wantDamage(t, r, Truncated, j.path, 2)
	wantMessage(t, r, "1 record or more is missing at the end")

	// It does not stand for a record that is missing after it.
	j = newJournal(t, memDir(t))
	j.append(2)
	j.crash()
	j.rotate()
	j.append(3)
	j.must(j.log.Close())
	wantWhole(t, j.verify())
	files = j.lines()
	files[1] = files[1][1:]
	j.write(files)
	r = j.verify()
	wantDamage(t, r, Dropped, j.path, 1)
	wantMessage(t, r, "1 record between 2 and 4 is missing")
	wantNote(t, r, j.old[0]+":3: a write was cut off here")
}

// TestVerifyBeginning: that a log does not begin at its first record is said, but
// not where the records before are there and were changed.
func TestVerifyBeginning(t *testing.T) {
	j := newJournal(t, memDir(t))
	j.append(4)
	j.must(j.log.Close())
	files := j.lines()
	files[0][0].text = strings.Replace(files[0][0].text, "4711", "4712", 1)
	j.write(files)
	r := j.verify()
	if wantDamage(t, r, Changed, j.path, 1); strings.Contains(strings.Join(r.Notes, ""), "begins at") {
		t.Errorf("notes %q", r.Notes)
	}
	files[0] = files[0][1:]
	j.write(files)
	r = j.verify()
	wantWhole(t, r)
	wantNote(t, r, "begins at record 2 here, at "+j.path+":1", "or they were cut off")
}
