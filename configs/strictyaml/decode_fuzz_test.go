package strictyaml

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode"
)

// FuzzDecode: whatever bytes come, they are read, or what is wrong is told with a
// line of the document, in its order, and in a way that a terminal can show. What
// is read is written in a way that reads as the same.
func FuzzDecode(f *testing.F) {
	for _, doc := range []string{
		"name: x\non: true\ncount: -3\nport: 1\nid: 5\nwait: 1d\nuntil: 2027-03-01\ntexts: [a]\nbox: {width: 1}\nclaims: [{title: x, value: {a: [1, null]}}]\n",
		"", "\ufeffname: x\r\n", "[", "a: &a [*a]", "? [x]\n: y", "<<: {name: x}", "name:x\non: true", "\tx: y", "name: x\n---\n", "name: x\n...\nx", "\"\\e\": 1", "x: !%1b 1", "wait: 5\nwait: 6",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var got sheet
		_, faults, err := Decode(doc, &got, nil)
		var broken *SyntaxError
		if errors.As(err, &broken) {
			faults = []Fault{{Line: broken.Line, Message: broken.Message}}
		} else if err != nil && !errors.Is(err, ErrEmpty) {
			t.Fatal(err)
		}
		last := 1
		for _, f := range faults {
			// yaml has line ends that no editor has: NEL, LS, PS
			if f.Line < last || f.Line > 2+len(doc) {
				t.Errorf("line %d behind %d: %s", f.Line, last, f.Message)
			}
			last = f.Line
			if text := f.Path + f.Message; strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("not to be shown: %q", text)
			}
		}
		if err != nil || faults != nil {
			return
		}
		shown, err := Encode(got)
		if err != nil {
			t.Fatal(err)
		}
		var again sheet
		if _, faults, err := Decode(shown, &again, nil); faults != nil || err != nil {
			t.Fatalf("what is shown is not read: %v, %v\n%s", faults, err, shown)
		}
		if shown2, err := Encode(again); err != nil || !bytes.Equal(shown, shown2) {
			t.Errorf("shown twice:\n%s\n%s\n%v", shown, shown2, err)
		}
	})
}
