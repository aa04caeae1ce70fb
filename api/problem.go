package api

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// ProblemType is the media type of an error (RFC 9457 §3).
const ProblemType = "application/problem+json"

// Code is the stable name of an error. Clients decide on it, people read the detail.
type Code string

// The codes, with the HTTP status that each is sent with.
const (
	InvalidRequest Code = "invalid_request" // 400
	TTLTooLong     Code = "ttl_too_long"    // 400
	ClaimForbidden Code = "claim_forbidden" // 400
	Forbidden      Code = "forbidden"       // 403
	NotFound       Code = "not_found"       // 404
	NotSafeYet     Code = "not_safe_yet"    // 409, with safe_at where it is known
	KeyClosed      Code = "key_closed"      // 409: it never signs again
	KeyMissing     Code = "key_missing"     // 409: its private half is gone or damaged
	NotFrozen      Code = "not_frozen"      // 409: there is nothing to accept
	MarkTooLow     Code = "mark_too_low"    // 409: another replica has seen more
	TooLarge       Code = "too_large"       // 413
	RateLimited    Code = "rate_limited"    // 429, with Retry-After
	NoActiveKey    Code = "no_active_key"   // 503, with Retry-After
	SigningLapsed  Code = "signing_lapsed"  // 503, with Retry-After
	Unavailable    Code = "unavailable"     // 503, with Retry-After
)

// Problem is an error on the wire (RFC 9457). It is an error in Go as well.
type Problem struct {
	// Type is "about:blank": the code says what a type URI would.
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	Code   Code   `json:"code"`
	// SafeAt is when the refused step becomes safe (not_safe_yet).
	SafeAt time.Time `json:"safe_at,omitzero"`
	// WaitingFor names the targets that it waits for (not_safe_yet).
	WaitingFor []string `json:"waiting_for,omitempty"`
	// RetryAfter is sent as a header, in whole seconds.
	RetryAfter time.Duration `json:"-"`
}

// NewProblem is the problem for a code, with what is wrong and how to mend it.
func NewProblem(code Code, detail string) *Problem {
	status, title := http.StatusBadRequest, "The request is not valid"
	retry := time.Duration(0)
	switch code {
	case TTLTooLong:
		title = "The token would live too long"
	case ClaimForbidden:
		title = "The claim is not allowed"
	case Forbidden:
		status, title = http.StatusForbidden, "Not allowed"
	case NotFound:
		status, title = http.StatusNotFound, "Not found"
	case NotSafeYet:
		status, title = http.StatusConflict, "Not safe yet"
	case KeyClosed:
		status, title = http.StatusConflict, "The key is closed"
	case KeyMissing:
		status, title = http.StatusConflict, "The private half is missing"
	case NotFrozen:
		status, title = http.StatusConflict, "Nothing to accept"
	case MarkTooLow:
		status, title = http.StatusConflict, "Another replica has seen more"
	case TooLarge:
		status, title = http.StatusRequestEntityTooLarge, "The request is too large"
	case RateLimited:
		status, title, retry = http.StatusTooManyRequests, "Too many requests", time.Second
	case NoActiveKey:
		status, title, retry = http.StatusServiceUnavailable, "No key may sign now", 2*time.Second
	case SigningLapsed:
		status, title, retry = http.StatusServiceUnavailable, "The signing lease has lapsed", 5*time.Second
	case Unavailable:
		status, title, retry = http.StatusServiceUnavailable, "Not available now", time.Second
	}
	return &Problem{Type: "about:blank", Title: title, Status: status, Detail: detail, Code: code, RetryAfter: retry}
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return string(p.Code)
	}
	return string(p.Code) + ": " + p.Detail
}

// WriteTo answers a request with the problem. What may be mended by waiting
// carries Retry-After; no problem is ever stored by a cache.
func (p *Problem) WriteTo(w http.ResponseWriter) {
	body, err := json.Marshal(p)
	if err != nil { // a Problem holds nothing that could fail
		body = []byte(`{"code":"unavailable"}`)
	}
	w.Header().Set("Content-Type", ProblemType)
	w.Header().Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(p.RetryAfter.Round(time.Second)/time.Second))))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client has gone: nobody to tell
}
