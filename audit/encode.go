package audit

import (
	"errors"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// errYear: encoding/json refuses such a time as well (RFC 3339 has four digits).
var errYear = errors.New("encode audit record: the year of a time is not between 0 and 9999")

// appendTo writes the record as encoding/json would, without the brace that
// closes it: the chain's members follow. It is written by hand, since
// reflection costs as much as a signature. Every line is of printing
// characters, whatever its strings hold.
func (r *Record) appendTo(dst []byte) ([]byte, error) {
	if !plainYear(r.Time) || !plainYear(r.ExpiresAt) || !plainYear(r.First) {
		return dst, errYear
	}
	dst = appendTime(append(dst, `{"time":`...), r.Time)
	dst = appendText(append(dst, `,"event":`...), string(r.Event))
	dst = appendMember(dst, `,"decision":`, string(r.Decision))
	dst = appendMember(dst, `,"code":`, r.Code)
	dst = appendText(append(dst, `,"socket":`...), r.Socket)
	dst = strconv.AppendUint(append(dst, `,"uid":`...), uint64(r.UID), 10)
	dst = strconv.AppendUint(append(dst, `,"gid":`...), uint64(r.GID), 10)
	dst = strconv.AppendInt(append(dst, `,"pid":`...), int64(r.PID), 10)
	dst = appendMember(dst, `,"profile":`, r.Profile)
	dst = appendMember(dst, `,"issuer":`, r.Issuer)
	dst = appendMember(dst, `,"ring":`, r.Ring)
	dst = appendMember(dst, `,"kid":`, r.Kid)
	dst = appendList(dst, `,"kids":`, r.Kids)
	if r.Force {
		dst = append(dst, `,"force":true`...)
	}
	if r.SignNow {
		dst = append(dst, `,"sign_now":true`...)
	}
	dst = appendMember(dst, `,"jti":`, r.JTI)
	dst = appendMember(dst, `,"subject":`, r.Subject)
	dst = appendList(dst, `,"audiences":`, r.Audiences)
	if !r.ExpiresAt.IsZero() {
		dst = appendTime(append(dst, `,"expires_at":`...), r.ExpiresAt)
	}
	dst = appendMember(dst, `,"claims_sha256":`, r.ClaimsSHA256)
	dst = appendMember(dst, `,"reason":`, r.Reason)
	if r.Count != 0 {
		dst = strconv.AppendInt(append(dst, `,"count":`...), int64(r.Count), 10)
	}
	if !r.First.IsZero() {
		dst = appendTime(append(dst, `,"first":`...), r.First)
	}
	return dst, nil
}

func plainYear(t time.Time) bool {
	y := t.UTC().Year()
	return 0 <= y && y <= 9999
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = t.UTC().AppendFormat(append(dst, '"'), time.RFC3339Nano)
	return append(dst, '"')
}

// appendMember leaves an empty member out.
func appendMember(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	return appendText(append(dst, name...), value)
}

func appendList(dst []byte, name string, list []string) []byte {
	if len(list) == 0 {
		return dst
	}
	dst = append(append(dst, name...), '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, s)
	}
	return append(dst, ']')
}

// appendText writes a string as JSON. What does not print becomes a \u escape,
// which means the same: a caller chooses some of these strings, and whoever
// reads the log in a terminal must not have it rewritten by controls (U+009B,
// DEL), ended early by what counts as a line break (U+0085, U+2028) or turned
// around (U+202E). HTML is not escaped: the log is read by people and by grep.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		r, size := rune(c), 1
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) {
				i += size
				continue
			}
		}
		dst = appendEscape(append(dst, s[start:i]...), r)
		i += size
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

func appendEscape(dst []byte, r rune) []byte {
	switch r {
	case '"', '\\':
		return append(dst, '\\', byte(r))
	case '\b':
		return append(dst, `\b`...)
	case '\f':
		return append(dst, `\f`...)
	case '\n':
		return append(dst, `\n`...)
	case '\r':
		return append(dst, `\r`...)
	case '\t':
		return append(dst, `\t`...)
	}
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return appendUnit(appendUnit(dst, uint16(high)), uint16(low))
	}
	return appendUnit(dst, uint16(r))
}

func appendUnit(dst []byte, unit uint16) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'u', digits[unit>>12], digits[unit>>8&15], digits[unit>>4&15], digits[unit&15])
}
