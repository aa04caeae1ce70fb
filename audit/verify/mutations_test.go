package verify

import (
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// randomJournal appends, restarts, rotates, crashes and anchors.
func randomJournal(rt *rapid.T, dir string) *journal {
	j := newJournal(rt, dir)
	rt.Repeat(map[string]func(*rapid.T){
		"append":  func(rt *rapid.T) { j.append(rapid.IntRange(1, 5).Draw(rt, "n")) },
		"restart": func(*rapid.T) { j.restart() },
		"rotate":  func(*rapid.T) { j.rotate() },
		"crash":   func(*rapid.T) { j.crash() },
		"anchor":  func(*rapid.T) { j.anchor() },
		"":        func(rt *rapid.T) {},
	})
	j.append(5)
	j.must(j.log.Close())
	return j
}

// TestMutations: whatever is done to a log, Verify finds it and says where;
// what it cannot see is what docs/audit.md says that it cannot.
func TestMutations(t *testing.T) {
	parent := memDir(t)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(parent, "")
		if err != nil {
			rt.Fatal(err)
		}
		j := randomJournal(rt, dir)
		whole := j.verify(j.heads...)
		wantWhole(rt, whole)
		if len(whole.Chains) != 1 || whole.Chains[0].From != 1 || whole.Chains[0].Head.Seq != whole.Records {
			rt.Fatalf("chains %+v", whole.Chains)
		}
		names := slices.Sorted(func(yield func(string) bool) {
			for name := range mutations() {
				if !yield(name) {
					return
				}
			}
		})
		mutations()[rapid.SampledFrom(names).Draw(rt, "mutation")](rt, j)
	})
}

// pick draws a record by its place among all records; not the first few or last.
func pick(rt *rapid.T, files [][]line, notFirst, notLast int) line {
	var all []line
	for _, list := range files {
		for _, l := range list {
			if l.ok {
				all = append(all, l)
			}
		}
	}
	return all[rapid.IntRange(notFirst, len(all)-1-notLast).Draw(rt, "record")]
}

func mutations() map[string]func(*rapid.T, *journal) {
	return map[string]func(*rapid.T, *journal){
		"change a byte": func(rt *rapid.T, j *journal) {
			files := j.lines()
			i := rapid.SampledFrom(nonEmpty(files)).Draw(rt, "file")
			l := &files[i][rapid.IntRange(0, len(files[i])-1).Draw(rt, "line")]
			if l.open {
				return // half a line at the end of a file: nobody knows what it was
			}
			at := rapid.IntRange(0, len(l.text)-1).Draw(rt, "at")
			b := rapid.ByteRange(' ', '~').Filter(func(b byte) bool { return b != l.text[at] }).Draw(rt, "byte")
			l.text = l.text[:at] + string(b) + l.text[at+1:]
			j.write(files)
			wantDamage(rt, j.verify(), Changed, j.files()[i], l.nr)
		},
		"drop a record": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l := pick(rt, files, 1, 1)
			files[l.file] = slices.Delete(files[l.file], l.nr-1, l.nr)
			j.write(files)
			if strings.Contains(l.text, `"event":"torn"`) {
				wantDamage(rt, j.verify(), Changed, j.files()[l.file], l.nr-1)
				return
			}
			wantDamage(rt, j.verify(), Dropped, "", 0)
		},
		"swap two records": func(rt *rapid.T, j *journal) {
			files := j.lines()
			a, b := pick(rt, files, 0, 0), pick(rt, files, 0, 0)
			if a.Seq == b.Seq {
				return
			}
			files[a.file][a.nr-1], files[b.file][b.nr-1] = b, a
			j.write(files)
			wantDamage(rt, j.verify(), Reordered, "", 0)
		},
		"repeat a record": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l, to := pick(rt, files, 0, 0), pick(rt, files, 0, 0)
			files[to.file] = slices.Insert(files[to.file], to.nr, l)
			j.write(files)
			r := j.verify()
			wantDamage(rt, r, Duplicated, "", 0)
			if l.Seq < to.Seq { // else nobody can tell which of them is the copy
				wantDamage(rt, r, Duplicated, j.files()[to.file], to.nr+1)
			}
		},
		"put a forged record between": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l := pick(rt, files, 0, 2) // before the last nobody could tell them apart
			forged := reseal(`{"time":"2026-03-01T11:00:00Z","event":"sign"`, l.Hash, l.Seq+1, l.Chain)
			files[l.file] = slices.Insert(files[l.file], l.nr, forged)
			j.write(files)
			wantDamage(rt, j.verify(), Inserted, j.files()[l.file], l.nr+1)
		},
		"put a line between": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l := pick(rt, files, 0, 1)
			text := rapid.SampledFrom([]string{"", "{}", `{"time":"2026-03-01T11:00:00Z","event":"sign"}`, "\x00\x00"}).Draw(rt, "line")
			files[l.file] = slices.Insert(files[l.file], l.nr, line{text: text})
			j.write(files)
			wantDamage(rt, j.verify(), Changed, j.files()[l.file], l.nr+1)
		},
		"replace a record and its hash": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l := pick(rt, files, 1, 1)
			files[l.file][l.nr-1] = reseal(`{"time":"2026-03-01T11:00:00Z","event":"sign"`, l.Prev, l.Seq, l.Chain)
			j.write(files)
			wantDamage(rt, j.verify(), Changed, j.files()[l.file], l.nr)
		},
		"write the log anew from some record on": func(rt *rapid.T, j *journal) {
			head := j.verify().Chains[0].Head
			files := j.lines()
			from := pick(rt, files, 0, 0)
			prev := from.Prev
			for i, list := range files {
				for k, l := range list {
					if !l.ok || l.Seq < from.Seq {
						continue
					}
					body, _, _ := strings.Cut(l.text, `,"chain":"`)
					if l.Seq == from.Seq {
						body = strings.Replace(body, "2026", "2025", 1)
					}
					files[i][k] = reseal(body, prev, l.Seq, l.Chain)
					prev = files[i][k].Hash
				}
			}
			j.write(files)
			wantWhole(rt, j.verify()) // nobody can see it
			wantDamage(rt, j.verify(head), Changed, head.File, len(files[len(files)-1]))
		},
		"cut the tail": func(rt *rapid.T, j *journal) {
			head := j.verify().Chains[0].Head
			data, err := os.ReadFile(j.path)
			j.must(err)
			size := rapid.Int64Range(0, int64(len(data)-1)).Draw(rt, "size")
			j.must(os.Truncate(j.path, size))
			if size == int64(len(data)-1) {
				wantWhole(rt, j.verify(head)) // nothing but the last newline
				return
			}
			list := j.lines()[len(j.old)]
			if n := len(list); n < 2 || list[n-1].ok || list[n-2].ok { // else half of a record that tells of a crash
				wantWhole(rt, j.verify()) // nobody can tell it from a crash
			}
			wantDamage(rt, j.verify(head), Truncated, "", 0)
		},
		"drop the oldest records": func(rt *rapid.T, j *journal) {
			files := j.lines()
			l := pick(rt, files, 1, 0)
			for i := range l.file {
				files[i] = nil
			}
			files[l.file] = files[l.file][l.nr-1:]
			j.write(files)
			r := j.verify()
			for _, d := range r.Damages { // as of a log that was rotated away, but for the bytes before a torn one
				if !strings.Contains(l.text, `"event":"torn"`) || d.Seq != l.Seq {
					rt.Fatalf("damages %+v", r.Damages)
				}
			}
			if r.Chains[0].From != l.Seq {
				rt.Fatalf("begins at %d, want %d", r.Chains[0].From, l.Seq)
			}
		},
		"put another log in its place": func(rt *rapid.T, j *journal) {
			head := j.verify().Chains[0].Head
			for _, f := range append(j.files(), j.path+".lock") {
				j.must(os.Remove(f))
			}
			j.old = nil
			j.open()
			j.append(3)
			j.must(j.log.Close())
			wantWhole(rt, j.verify())
			wantDamage(rt, j.verify(head), Replaced, "", 0)
		},
	}
}

func nonEmpty(files [][]line) (out []int) {
	for i, list := range files {
		if len(list) > 0 {
			out = append(out, i)
		}
	}
	return out
}
