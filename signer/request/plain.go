package request

import (
	"slices"

	"github.com/keyturn/keyturn/api"
)

// Most requests are of a plain form: printing ASCII without escapes, the
// members that there are, claims that are scalars or lists of them. Reading
// these with a general decoder takes longer than all that is done with them but the
// signature. So they are read here, in one pass and without reflection. Whatever
// is not plain, right or wrong, goes to strictjson: this reader never says what
// is wrong, only that it is not sure. FuzzPlain holds the two together.

// scan is a place in a JSON text. The texts that it finds are parts of one
// string, made of the whole at once, and the lists parts of longer ones.
type scan struct {
	doc    []byte
	whole  string // of doc
	at     int
	texts  []string
	claims []Claim
}

func newScan(doc []byte) scan { return scan{doc: doc, whole: string(doc)} }

// skip passes over white space (RFC 8259 §2).
func (s *scan) skip() {
	for s.at < len(s.doc) {
		switch s.doc[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

// is passes over one character, if it comes next.
func (s *scan) is(c byte) bool {
	s.skip()
	if s.at == len(s.doc) || s.doc[s.at] != c {
		return false
	}
	s.at++
	return true
}

// end reports whether nothing but white space is left.
func (s *scan) end() bool {
	s.skip()
	return s.at == len(s.doc)
}

// text is what stands between two quotation marks.
func (s *scan) text() (string, bool) {
	if !s.is('"') {
		return "", false
	}
	from := s.at
	for s.at < len(s.doc) {
		switch c := s.doc[s.at]; {
		case c == '"':
			s.at++
			return s.whole[from : s.at-1], true
		case c < ' ' || c > '~' || c == '\\':
			return "", false
		}
		s.at++
	}
	return "", false
}

// value is the text of a scalar, or of a list of scalars. What it is, the first
// character says: after a failure the place is somewhere in the midst of
// something, and nothing is read from there.
func (s *scan) value() ([]byte, bool) {
	s.skip()
	from := s.at
	if s.at == len(s.doc) || s.doc[s.at] != '[' {
		ok := s.scalar()
		return s.doc[from:s.at:s.at], ok
	}
	s.at++
	for more := !s.is(']'); more; {
		if !s.scalar() {
			return nil, false
		}
		if more = !s.is(']'); more && !s.is(',') {
			return nil, false
		}
	}
	return s.doc[from:s.at:s.at], true
}

func (s *scan) scalar() bool {
	s.skip()
	if s.at == len(s.doc) {
		return false
	}
	switch s.doc[s.at] {
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scan) word(w string) bool {
	if len(s.doc)-s.at < len(w) || string(s.doc[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// number passes over one (RFC 8259 §6) without a fraction or an exponent.
func (s *scan) number() bool {
	if s.doc[s.at] == '-' {
		s.at++
	}
	from := s.at
	for s.at < len(s.doc) && '0' <= s.doc[s.at] && s.doc[s.at] <= '9' {
		s.at++
	}
	digits := s.at - from
	if digits == 0 || digits > 1 && s.doc[from] == '0' {
		return false
	}
	// More of it comes: not ours to read.
	return s.at == len(s.doc) || s.doc[s.at] != '.' && s.doc[s.at] != 'e' && s.doc[s.at] != 'E'
}

// seconds is a number of a few digits.
func (s *scan) seconds() (int64, bool) {
	s.skip()
	from := s.at
	if s.at == len(s.doc) || !s.number() || s.at-from > 9 {
		return 0, false
	}
	n := int64(0)
	for _, c := range s.doc[from:s.at] {
		if c == '-' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// The members of a request, each at most once.
const (
	hasProfile = 1 << iota
	hasSubject
	hasAudience
	hasTTL
	hasClaims
)

// scan reads a request that is plain; false: it may be another one.
func (r *Request) scan(s *scan) bool {
	if !s.is('{') {
		return false
	}
	if s.is('}') {
		return true
	}
	seen := 0
	for {
		name, ok := s.text()
		if !ok || !s.is(':') {
			return false
		}
		member := 0
		switch name {
		case "profile":
			member, ok = hasProfile, s.string(&r.Profile)
		case "subject":
			member, ok = hasSubject, s.string(&r.Subject)
		case "audience":
			member, ok = hasAudience, r.scanAudience(s)
		case "ttl_seconds":
			member = hasTTL
			r.TTL, ok = s.seconds()
			r.HasTTL = ok
		case "claims":
			member, ok = hasClaims, r.scanClaims(s)
		}
		if !ok || member == 0 || seen&member != 0 {
			return false
		}
		seen |= member
		if s.is('}') {
			return true
		}
		if !s.is(',') {
			return false
		}
	}
}

func (s *scan) string(out *string) (ok bool) {
	*out, ok = s.text()
	return ok
}

func (r *Request) scanAudience(s *scan) bool {
	from := len(s.texts)
	more := s.is('[')
	if !more { // one alone
		one, ok := s.text()
		s.texts = append(s.texts, one)
		r.Audience = s.texts[from:len(s.texts):len(s.texts)]
		return ok
	}
	for more = !s.is(']'); more; {
		one, ok := s.text()
		if !ok || len(s.texts)-from == maxPlainItems {
			return false
		}
		s.texts = append(s.texts, one)
		if more = !s.is(']'); more && !s.is(',') {
			return false
		}
	}
	r.Audience = s.texts[from:len(s.texts):len(s.texts)]
	return true
}

func (r *Request) scanClaims(s *scan) bool {
	if !s.is('{') {
		return false
	}
	from := len(s.claims)
	for more := !s.is('}'); more; {
		name, ok := s.text()
		if !ok || !s.is(':') {
			return false
		}
		value, ok := s.value()
		if !ok || len(s.claims)-from == maxPlainItems {
			return false
		}
		s.claims = append(s.claims, Claim{Name: name, Value: value})
		if more = !s.is('}'); more && !s.is(',') {
			return false
		}
	}
	r.Claims = s.claims[from:len(s.claims):len(s.claims)]
	slices.SortFunc(r.Claims, Claim.Compare)
	for i := 1; i < len(r.Claims); i++ {
		if r.Claims[i].Name == r.Claims[i-1].Name {
			return false
		}
	}
	return true
}

// scanBatch reads the requests of a batch, if all of it is plain.
func scanBatch(body []byte) ([]Entry, bool) {
	if len(body) > mostPlain {
		return nil, false
	}
	s := newScan(body)
	if name, ok := s.startObject(); !ok || name != "requests" || !s.is('[') {
		return nil, false
	}
	list := []Entry{}
	for more := !s.is(']'); more; {
		if len(list) == cap(list) {
			list = append(make([]Entry, 0, 2*len(list)+16), list...)
		}
		if len(list) == api.MaxBatch {
			return nil, false
		}
		list = list[:len(list)+1]
		from := s.at
		if one := &list[len(list)-1]; !one.scan(&s) || s.at-from > maxPlainEntry {
			return nil, false
		}
		if more = !s.is(']'); more && !s.is(',') {
			return nil, false
		}
	}
	return list, s.is('}') && s.end()
}

// mostPlain is the most bytes that a plain batch has: larger ones are rare, and
// their memory counts.
const mostPlain = 1 << 20

// maxPlainEntry is far below what an entry may have: longer ones are not plain.
const maxPlainEntry = 16 << 10

// maxPlainItems is how many claims, or audiences, a plain request has: what is
// read of one that turns out to be too long is not much.
const maxPlainItems = 64

// startObject passes over an opening brace and the first name.
func (s *scan) startObject() (string, bool) {
	if !s.is('{') {
		return "", false
	}
	name, ok := s.text()
	return name, ok && s.is(':')
}
