package request

import (
	"fmt"
	"unicode/utf8"

	"github.com/keyturn/keyturn/api"
)

// Invalid is the answer to a request that is wrong in itself: invalid_request,
// with a detail of at most some hundred bytes if what came from outside is clipped.
func Invalid(format string, args ...any) *api.Problem {
	return api.NewProblem(api.InvalidRequest, fmt.Sprintf(format, args...))
}

// TooLarge is the answer to more than so many bytes.
func TooLarge(most int64) *api.Problem {
	return api.NewProblem(api.TooLarge, fmt.Sprintf("the request has more than %d bytes", most))
}

// Clip bounds what came from outside before it is repeated anywhere: to 64
// bytes, between two characters.
func Clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// clipDetail bounds an error of the JSON decoder, which repeats names.
func clipDetail(err error) string {
	const most = 300
	if text := err.Error(); len(text) > most {
		return text[:most] + "…"
	}
	return err.Error()
}
