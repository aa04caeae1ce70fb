package signer

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/keyturn/keyturn/signer/request"
)

// payload is the claims set (RFC 7519 §4): keyturn's own claims, then the
// others. Times are seconds since 1970.
type payload struct {
	Issuer, Subject                string
	Audience                       []string
	ExpiresAt, NotBefore, IssuedAt int64
	ID                             string
}

// encode appends the claims set as one line of JSON.
func (p *payload) encode(doc []byte, extra []request.Claim) ([]byte, error) {
	doc = appendText(append(doc, `{"iss":`...), p.Issuer)
	doc = appendText(append(doc, `,"sub":`...), p.Subject)
	doc = append(doc, `,"aud":[`...)
	for i, a := range p.Audience {
		if i > 0 {
			doc = append(doc, ',')
		}
		doc = appendText(doc, a)
	}
	doc = strconv.AppendInt(append(doc, `],"exp":`...), p.ExpiresAt, 10)
	doc = strconv.AppendInt(append(doc, `,"nbf":`...), p.NotBefore, 10)
	doc = strconv.AppendInt(append(doc, `,"iat":`...), p.IssuedAt, 10)
	doc = appendText(append(doc, `,"jti":`...), p.ID)
	for _, c := range extra {
		if len(c.Value) == 0 {
			return nil, errors.New("encode claims: one has no value")
		}
		doc = append(appendText(append(doc, ','), c.Name), ':')
		doc = append(doc, c.Value...)
	}
	return append(doc, '}'), nil
}

// appendText writes a JSON string. Most hold nothing that needs an escape.
func appendText(doc []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string never fails
			return append(doc, quoted...)
		}
	}
	doc = append(append(doc, '"'), s...)
	return append(doc, '"')
}
