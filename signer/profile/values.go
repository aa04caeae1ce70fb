package profile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/signer/request"
)

// isFlat reports whether a value, which is sound JSON, needs no closer look: it
// holds no object, and no number that is long or has an exponent. Nearly all are flat.
func isFlat(value []byte) bool {
	const long = 300 // digits: the largest float64 has 309
	digits := 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case '0' <= c && c <= '9':
			if digits++; digits > long {
				return false
			}
			continue
		case c == '{', digits > 0 && (c == 'e' || c == 'E'):
			return false
		case c == '"':
			for i++; value[i] != '"'; i++ {
				if value[i] == '\\' {
					i++
				}
			}
		}
		digits = 0
	}
	return true
}

// inspect looks at all that a value, which is sound JSON, holds at any depth:
// names that some reader takes for others, of the same object or among those
// of the profile, and numbers that most readers cannot hold.
func inspect(name string, value []byte, inner nameSet) *api.Problem {
	if isFlat(value) {
		return nil
	}
	var objects []twins // those that have begun
	for part := range strictjson.Parts(value) {
		switch part.Kind {
		case strictjson.Begin:
			objects = append(objects, twins{})
		case strictjson.End:
			objects = objects[:len(objects)-1]
		case strictjson.Number:
			if !holds(part.Text) {
				return request.Invalid("the claim %q holds the number %s, which most readers cannot hold: it is beyond a double; send it as a string", request.Clip(name), request.Clip(part.Text))
			}
		case strictjson.Name:
			before, twin := objects[len(objects)-1].find(part.Text)
			char, odd := unprintable(part.Text)
			meant := inner.twin(part.Text)
			switch {
			case odd:
				return forbiddenClaim("the claim %q holds the name %q with %U, which does not print, and some readers take it for another name; leave it out", request.Clip(name), request.Clip(part.Text), char)
			case twin:
				return request.Invalid("the claim %q holds the names %q and %q, which differ in case only, and some readers take one for the other", request.Clip(name), request.Clip(before), request.Clip(part.Text))
			case meant != "":
				return forbiddenClaim("the claim %q holds the name %q, which some readers take for %q, and the profile's condition is about that; write it so, or leave it out", request.Clip(name), request.Clip(part.Text), meant)
			}
		}
	}
	return nil
}

func forbiddenClaim(format string, args ...any) *api.Problem {
	return api.NewProblem(api.ClaimForbidden, fmt.Sprintf(format, args...))
}

// holds reports whether a number is within the range of a double, and its
// exponent is such that whoever writes it out needs no more than some hundred
// digits for it. What a double rounds is held.
func holds(number string) bool {
	const most = 400
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return false
	}
	digits, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	if f == 0 && strings.Trim(digits, "-0.") != "" {
		return false // so small that a double makes nothing of it
	}
	if exponent == "" {
		return true
	}
	e, err := strconv.Atoi(exponent)
	return err == nil && -most <= e && e <= most
}
