package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// wholeLog checks that a log, its files from the oldest to the newest, is one
// chain, and that what is no record is told of by the next one. It returns the
// number of records. Package verify, which imports this one, judges more.
func wholeLog(t *testing.T, paths ...string) (n int) {
	t.Helper()
	var last Link
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		torn := "" // the last line that is no record, without its newline
		for line := range strings.Lines(string(data)) {
			text := strings.TrimSuffix(line, "\n")
			l, sound := ParseLink([]byte(text))
			if !sound {
				torn = text
				continue
			}
			n++
			if n > 1 && (l.Chain != last.Chain || l.Seq != last.Seq+1 || l.Prev != last.Hash) {
				t.Errorf("%s: record %d of %s follows record %d of %s", path, l.Seq, l.Chain, last.Seq, last.Chain)
			}
			want := fmt.Sprintf(`"torn_bytes":%d,"torn_sha256":"%x"`, len(torn), sha256.Sum256([]byte(torn)))
			if torn != "" && !strings.Contains(text, want) {
				t.Errorf("%s: %q does not tell of %q before it", path, text, torn)
			}
			torn, last = "", l
		}
		if torn != "" {
			t.Errorf("%s ends in %q", path, torn)
		}
	}
	return n
}

// TestParseLink: the members are taken where the log puts them, and nowhere else.
func TestParseLink(t *testing.T) {
	line := bytes.TrimSuffix(lineOf(t, signed("j")), []byte("\n"))
	want, sound := ParseLink(line)
	if !sound || want.Seq != 1 || want.Chain == "" || string(want.Prev[:]) != strings.Repeat("0", 64) {
		t.Fatalf("%+v, %v of %s", want, sound, line)
	}
	edit := func(old, new string) []byte {
		t.Helper()
		if !bytes.Contains(line, []byte(old)) {
			t.Fatalf("no %s in %s", old, line)
		}
		return bytes.Replace(line, []byte(old), []byte(new), 1)
	}
	if l, sound := ParseLink(edit("user-4711", "user-4712")); sound || l != want {
		t.Errorf("a line that was changed: %+v, %v", l, sound)
	}
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"a newline":       append(bytes.Clone(line), '\n'),
		"no hash":         line[:len(line)-hashTail],
		"no prev":         edit(`,"prev":"`, `,"from":"`),
		"no chain":        edit(`,"chain":"`, `,"other":"`),
		"an empty chain":  edit(want.Chain, ""),
		"a long chain":    edit(want.Chain, strings.Repeat("C", 65)),
		"a quoted chain":  edit(want.Chain, `C\"`),
		"seq 0":           edit(`"seq":1,`, `"seq":0,`),
		"seq 01":          edit(`"seq":1,`, `"seq":01,`),
		"seq -1":          edit(`"seq":1,`, `"seq":-1,`),
		"seq of 64 bits":  edit(`"seq":1,`, `"seq":9223372036854775808,`),
		"no seq":          edit(`"seq":1,`, `"seq":,`),
		"prev in capital": edit(string(want.Prev[:]), strings.Repeat("A", 64)),
	} {
		if l, sound := ParseLink(bad); sound || l != (Link{}) {
			t.Errorf("%s: %+v, %v", name, l, sound)
		}
	}
	// What a caller chose stands before, and is escaped.
	r := signed("j")
	r.Subject = `","chain":"x","seq":7,"prev":"` + strings.Repeat("1", 64) + `","hash":"` + strings.Repeat("2", 64) + `"}`
	forged := bytes.TrimSuffix(lineOf(t, r), []byte("\n"))
	if l, sound := ParseLink(forged); !sound || l.Seq != 1 || !json.Valid(forged) {
		t.Errorf("%+v, %v of %s", l, sound, forged)
	}
}
