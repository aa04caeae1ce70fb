package profile

import (
	"slices"
	"strings"
	"unicode"
)

// maxName bounds a profile's name, in bytes.
const maxName = 128

// ours are the names that keyturn alone writes: claims and header members.
var ours = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "alg", "kid", "typ"}

// fold maps names to the same string when some JSON reader could take one for
// the other. Go's encoding/json matches names under Unicode simple folding and
// lets the last one win, so {"exp":1,"EXP":2} would outlive its exp.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r - 'a' + 'A' // the smallest of its orbit
		}
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
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

// isOurs reports whether a name is, or could be taken for, one that keyturn writes.
func isOurs(name string) bool {
	return slices.ContainsFunc(ours, func(o string) bool { return strings.EqualFold(o, name) })
}
