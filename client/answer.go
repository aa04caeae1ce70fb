package client

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// decode takes members that this build does not know: the daemon may be newer.
func decode(body []byte, out any) error {
	if err := strictjson.UnmarshalOpen(body, out); err != nil {
		return fmt.Errorf("%w: %w", errNotKeyturn, err)
	}
	return nil
}

// judge makes an error of what is not 200. It releases the answer then.
func (a *answer) judge() (*answer, error) {
	if a.status == http.StatusOK {
		return a, nil
	}
	defer a.release()
	return nil, problem(a.status, a.retryAfter, a.body)
}

// problem reads a refusal (RFC 9457). The status line counts, not the copy of
// it in the document.
func problem(status int, retryAfter string, body []byte) error {
	p := new(api.Problem)
	if err := strictjson.UnmarshalOpen(body, p); err != nil || p.Code == "" {
		return fmt.Errorf("%w (status %d)", errNotKeyturn, status)
	}
	p.Status, p.RetryAfter = status, waiting(retryAfter)
	return p
}

// waiting reads Retry-After in its form of seconds, the only one that keyturn
// writes; 0 is no advice.
func waiting(header string) time.Duration {
	n, err := strconv.ParseUint(header, 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// readToken reads the answer to a sign request.
func readToken(body []byte, out *api.SignResponse) error {
	if rest, ok := plainToken(body, out); ok && len(bytes.TrimSpace(rest)) == 0 {
		return nil
	}
	*out = api.SignResponse{}
	if err := decode(body, out); err != nil {
		return err
	}
	return checkToken(out)
}

func checkToken(r *api.SignResponse) error {
	if r.Token == "" || r.ExpiresIn < 1 {
		return fmt.Errorf("%w: it holds no token", errNotKeyturn)
	}
	return nil
}

// readResults reads the answer to a batch of n.
func readResults(body []byte, n int) ([]Result, error) {
	if out, ok := plainResults(body, n); ok {
		return out, nil
	}
	var doc struct {
		Results []struct {
			api.SignResponse
			Error *api.Problem `json:"error"`
		} `json:"results"`
	}
	if err := decode(body, &doc); err != nil {
		return nil, err
	}
	if len(doc.Results) != n {
		return nil, fmt.Errorf("%w: %d results for %d requests", errNotKeyturn, len(doc.Results), n)
	}
	out := make([]Result, n)
	for i := range doc.Results {
		one := &doc.Results[i]
		switch err := checkToken(&one.SignResponse); {
		case one.Error != nil && one.Error.Code != "":
			if one.Error.Status == http.StatusServiceUnavailable || one.Error.Status == http.StatusTooManyRequests {
				one.Error.RetryAfter = api.NewProblem(one.Error.Code, "").RetryAfter // an entry has no header
			}
			out[i].Err = one.Error
		case err != nil:
			return nil, err
		default:
			out[i].SignResponse = one.SignResponse
		}
	}
	return out, nil
}

// plainResults reads the answer to a batch in which every request got its
// token, in the form that the daemon writes. ok is false for anything else.
func plainResults(body []byte, n int) (out []Result, ok bool) {
	body, ok = bytes.CutPrefix(body, []byte(`{"results":[`))
	if !ok || n == 0 {
		return nil, false
	}
	out = make([]Result, n)
	for i := range out {
		if i > 0 {
			if body, ok = bytes.CutPrefix(body, []byte(",")); !ok {
				return nil, false
			}
		}
		if body, ok = plainToken(body, &out[i].SignResponse); !ok {
			return nil, false
		}
	}
	body, ok = bytes.CutPrefix(body, []byte("]}"))
	return out, ok && len(bytes.TrimSpace(body)) == 0
}

// plainToken reads one api.SignResponse in the very form that the daemon
// writes, without escapes, and returns what follows. Whatever else is valid is
// left to the decoder: this one is a tenth of its cost, and agrees with it.
func plainToken(body []byte, out *api.SignResponse) (rest []byte, ok bool) {
	token, rest, ok1 := plainMember(body, `{"token":"`)
	kid, rest, ok2 := plainMember(rest, `,"kid":"`)
	at, rest, ok3 := plainMember(rest, `,"expires_at":"`)
	rest, ok4 := bytes.CutPrefix(rest, []byte(`,"expires_in":`))
	if !ok1 || !ok2 || !ok3 || !ok4 || len(token) == 0 {
		return nil, false
	}
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	in, errIn := strconv.ParseInt(string(rest[:digits]), 10, 64)
	expires, errAt := time.Parse(time.RFC3339, string(at))
	if errors.Join(errIn, errAt) != nil || rest[0] == '0' || at[len(at)-1] != 'Z' {
		return nil, false
	}
	rest, ok = bytes.CutPrefix(rest[digits:], []byte("}"))
	both := string(token) + string(kid)
	*out = api.SignResponse{Token: both[:len(token)], Kid: both[len(token):], ExpiresAt: expires, ExpiresIn: in}
	return rest, ok
}

// plainMember reads a string of printing ASCII without escapes after a prefix.
func plainMember(body []byte, prefix string) (value, rest []byte, ok bool) {
	if len(body) < len(prefix) || string(body[:len(prefix)]) != prefix {
		return nil, nil, false
	}
	body = body[len(prefix):]
	end := bytes.IndexByte(body, '"')
	if end < 0 {
		return nil, nil, false
	}
	for _, c := range body[:end] {
		if c < ' ' || c > '~' || c == '\\' {
			return nil, nil, false
		}
	}
	return body[:end], body[end+1:], true
}
