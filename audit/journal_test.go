package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// journal is a log with its rotated files, the oldest first.
type journal struct {
	t     rapid.TB
	path  string
	log   *Log
	old   []string
	heads []Head
	next  int
}

// memDir is a folder in memory where there is one: a log syncs when it is
// closed, and these tests close many.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-audit-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newJournal(t rapid.TB, dir string) *journal {
	t.Helper()
	j := &journal{t: t, path: filepath.Join(dir, "audit.jsonl")}
	j.open()
	return j
}

func (j *journal) must(err error) {
	j.t.Helper()
	if err != nil {
		j.t.Fatal(err)
	}
}

func (j *journal) open() {
	j.t.Helper()
	var err error
	j.log, err = Open(j.path)
	j.must(err)
}

func (j *journal) append(n int) {
	j.t.Helper()
	for range n {
		j.next++
		j.must(j.log.Append(context.Background(), signed(fmt.Sprint("j", j.next))))
	}
}

func (j *journal) restart() {
	j.t.Helper()
	j.must(j.log.Close())
	j.open()
}

// crash leaves half a record.
func (j *journal) crash() {
	j.t.Helper()
	j.must(j.log.Close())
	data, err := os.ReadFile(j.path)
	j.must(err)
	if len(data) > 0 { // the half is of a write of ours
		f, err := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
		j.must(err)
		_, err = f.WriteString(`{"time":"2026-03-01T11:00:`)
		j.must(errors.Join(err, f.Close()))
	}
	j.open()
}

func (j *journal) rotate() {
	j.t.Helper()
	name := fmt.Sprintf("%s.%d", j.path, 100-len(j.old))
	j.must(os.Rename(j.path, name))
	j.must(j.log.Reopen())
	j.old = append(j.old, name)
}

func (j *journal) anchor() {
	j.t.Helper()
	h, err := j.log.Head(context.Background())
	j.must(err)
	if h.Seq > 0 {
		j.heads = append(j.heads, h)
	}
}

func (j *journal) files() []string { return append(slices.Clone(j.old), j.path) }

func (j *journal) verify(heads ...Head) Report {
	j.t.Helper()
	r, err := Verify(j.files(), heads)
	j.must(err)
	return r
}

// line is one line of a journal's files.
type line struct {
	file, nr int
	text     string // without the newline
	open     bool   // it has none
	linked
	ok bool
}

// lines reads all files; write writes them back.
func (j *journal) lines() (out [][]line) {
	j.t.Helper()
	for i, f := range j.files() {
		data, err := os.ReadFile(f)
		j.must(err)
		var list []line
		for text := range strings.Lines(string(data)) {
			text, whole := strings.CutSuffix(text, "\n")
			l, ok := parseLink([]byte(text))
			list = append(list, line{i, len(list) + 1, text, !whole, l, ok})
		}
		out = append(out, list)
	}
	return out
}

func (j *journal) write(files [][]line) {
	j.t.Helper()
	for i, list := range files {
		var b strings.Builder
		for _, l := range list {
			b.WriteString(l.text)
			if !l.open {
				b.WriteByte('\n')
			}
		}
		j.must(os.WriteFile(j.files()[i], []byte(b.String()), 0o600))
	}
}

// reseal makes a record with its own members anew.
func reseal(text string, prev digest, seq uint64, chain string) line {
	l := link{chain: chain, seq: seq - 1, hash: prev}
	body, _, _ := strings.Cut(text, chainMember)
	doc := l.seal([]byte(body), 0)
	made, ok := parseLink(doc[:len(doc)-1])
	return line{text: string(doc[:len(doc)-1]), linked: made, ok: ok}
}

func wantDamage(t rapid.TB, r Report, kind Kind, file string, nr int) {
	t.Helper()
	for _, d := range r.Damages {
		if d.Kind == kind && (file == "" || d.File == file && d.Line == nr) {
			return
		}
	}
	t.Fatalf("no damage %s at %s:%d in %+v, notes %q", kind, file, nr, r.Damages, r.Notes)
}

func wantWhole(t rapid.TB, r Report) {
	t.Helper()
	if !r.OK() {
		t.Fatalf("damages: %+v, notes %q", r.Damages, r.Notes)
	}
}
