package api

import (
	"encoding/json"
	"slices"
	"testing"
)

// FuzzAudience: one string or an array of strings, and nothing else; written as
// an array it reads as the same.
func FuzzAudience(f *testing.F) {
	for _, s := range []string{`"a"`, `["a","b"]`, `[]`, `null`, `[null]`, `["a",1]`, `{"a":1}`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var a Audience
		if json.Unmarshal(doc, &a) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back Audience
		if err := json.Unmarshal(out, &back); err != nil || !slices.Equal(a, back) {
			t.Errorf("%s was read as %q, written as %s, read as %q (%v)", doc, a, out, back, err)
		}
	})
}
