package profile

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName bounds a profile's name, in bytes.
const maxName = 128

// ours are the names that keyturn alone writes: claims and header members.
var ours = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "alg", "kid", "typ"}

var foldedOurs = func() map[string]bool {
	out := map[string]bool{}
	for _, name := range ours {
		out[fold(name)] = true
	}
	return out
}()

// isOurs reports whether a name is, or could be taken for, one that keyturn writes.
func isOurs(name string) bool {
	var space [foldSpace]byte
	return foldedOurs[string(appendFold(space[:0], name))]
}

// fold maps names to the same string when some JSON reader could take one for
// the other. Go's encoding/json matches names under Unicode simple folding and
// lets the last one win, so {"exp":1,"EXP":2} would outlive its exp. Java's
// equalsIgnoreCase goes by way of the upper case, by which ı is i. Readers that
// compare upper cases, or fold in full, take ß for ss. Comparisons by the rules of a
// language do not see what has no look of its own.
func fold(name string) string { return string(appendFold(nil, name)) }

// foldSpace is what most folded names fit into, so that they need no heap.
const foldSpace = 64

func appendFold(dst []byte, name string) []byte {
	for _, r := range name {
		switch {
		case 'a' <= r && r <= 'z':
			dst = append(dst, byte(r-'a'+'A')) // the smallest of its orbit
		case r < utf8.RuneSelf:
			dst = append(dst, byte(r))
		case unicode.In(r, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
		case joined[r] != "":
			dst = append(dst, joined[r]...)
		default:
			r = unicode.ToLower(unicode.ToUpper(r))
			least := r
			for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
				least = min(least, next)
			}
			dst = utf8.AppendRune(dst, least)
		}
	}
	return dst
}

// joined are the characters that are several letters of ASCII when they are
// folded in full (Unicode CaseFolding.txt, status F).
var joined = map[rune]string{
	'ß': "SS", 'ẞ': "SS", 'ﬀ': "FF", 'ﬁ': "FI", 'ﬂ': "FL", 'ﬃ': "FFI", 'ﬄ': "FFL", 'ﬅ': "ST", 'ﬆ': "ST",
}

// unprintable is the first character that is not a letter, mark, number,
// punctuation, symbol or space, as far as there is one. What does not print is
// not the same to all: libjson-c reads "exp\u0000" as exp, and terminals and
// people turn around what follows U+202E.
func unprintable(s string) (rune, bool) {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return r, true
		}
	}
	return 0, false
}

// nameSet holds names by what they fold to.
type nameSet map[string][]string

func (n nameSet) add(name string) {
	if folded := fold(name); !slices.Contains(n[folded], name) {
		n[folded] = append(n[folded], name)
	}
}

// twin is a name of the set that some readers take this one for, "" where there
// is none, or where this one is in the set itself.
func (n nameSet) twin(name string) string {
	if len(n) == 0 {
		return ""
	}
	var space [foldSpace]byte
	list := n[string(appendFold(space[:0], name))]
	if len(list) == 0 || slices.Contains(list, name) {
		return ""
	}
	return list[0]
}

// twins finds names that some readers take for each other, among those that
// are found one after the other. Few are compared with each other; for many there
// is a table, so that a request full of names stays cheap.
type twins struct {
	few  [manyNames]string
	n    int  // of few
	wide bool // some of few are beyond ASCII
	many map[string]string
}

// manyNames is from where on there is a table.
const manyNames = 8

// find is the name before this one that could be taken for it, and keeps this one.
func (t *twins) find(name string) (string, bool) {
	if t.many == nil {
		if t.n < manyNames {
			t.wide = t.wide || !isASCII(name)
			for _, before := range t.few[:t.n] {
				if t.wide && same(before, name) || !t.wide && strings.EqualFold(before, name) {
					return before, true
				}
			}
			t.few[t.n] = name
			t.n++
			return "", false
		}
		t.many = make(map[string]string, 4*manyNames)
		for _, before := range t.few {
			t.many[fold(before)] = before
		}
	}
	folded := fold(name)
	before, found := t.many[folded]
	t.many[folded] = name
	return before, found
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// same reports whether two names fold to the same.
func same(a, b string) bool {
	var spaceA, spaceB [foldSpace]byte
	return string(appendFold(spaceA[:0], a)) == string(appendFold(spaceB[:0], b))
}
