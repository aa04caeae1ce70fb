package verify

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/audit"
	"pgregory.net/rapid"
)

// journal is a log with its rotated files, the oldest first.
type journal struct {
	t     rapid.TB
	path  string
	log   *audit.Log
	old   []string
	heads []audit.Head
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
	j.log, err = audit.Open(j.path)
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

func (j *journal) verify(anchors ...audit.Head) Report {
	j.t.Helper()
	return verified(j.t, j.files(), Known{Anchors: anchors})
}

func verified(t rapid.TB, paths []string, known Known) Report {
	t.Helper()
	r, err := Files(paths, known)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// signed is a record as an allow has it in life.
func signed(jti string) audit.Record {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	return audit.Record{
		Time: at, Event: audit.EventSign, Decision: audit.Allow, Socket: "default", UID: 1000, GID: 1000, PID: 4242,
		Profile: "orders", Kid: "k1", JTI: jti, Subject: "user-4711", Audiences: []string{"api://orders"},
	}
}

// line is one line of a journal's files.
type line struct {
	file, nr int
	text     string // without the newline
	open     bool   // it has none
	audit.Link
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
			l, _ := audit.ParseLink([]byte(text))
			list = append(list, line{i, len(list) + 1, text, !whole, l, l.Seq > 0})
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

// reseal makes a record with its own members anew, as docs/audit.md tells the
// form and not with the code that the log has for it.
func reseal(text string, prev audit.Digest, seq uint64, chain string) line {
	body, _, _ := strings.Cut(text, `,"chain":"`)
	content := fmt.Sprintf(`%s,"chain":"%s","seq":%d,"prev":"%s"`, body, chain, seq, prev[:])
	made := fmt.Sprintf(`%s,"hash":"%x"}`, content, sha256.Sum256([]byte(content)))
	l, sound := audit.ParseLink([]byte(made))
	return line{text: made, Link: l, ok: sound}
}

// digest is one of a single digit.
func digest(digit string) (d audit.Digest) {
	copy(d[:], strings.Repeat(digit, len(d)))
	return d
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

// wantMessage wants one damage with these words.
func wantMessage(t rapid.TB, r Report, words ...string) {
	t.Helper()
	for _, d := range r.Damages {
		missing := slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(d.Message, w) })
		if !missing {
			return
		}
	}
	t.Fatalf("no damage is %q: %+v", words, r.Damages)
}

func wantWhole(t rapid.TB, r Report) {
	t.Helper()
	if !r.OK() {
		t.Fatalf("damages: %+v, notes %q", r.Damages, r.Notes)
	}
}
