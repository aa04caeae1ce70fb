package request

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// Request is an api.SignRequest as the judges read it. The values of claims are
// parts of the body.
type Request struct {
	Profile  string
	Subject  string
	Audience []string
	// TTL is in seconds, any number that was sent; HasTTL: one was.
	TTL    int64
	HasTTL bool
	// Claims are sorted by name, each once.
	Claims []Claim
}

// Claim is one claim and its value, any JSON.
type Claim struct {
	Name  string
	Value json.RawMessage
}

// Compare orders claims by name.
func (c Claim) Compare(other Claim) int { return strings.Compare(c.Name, other.Name) }

// Claim is the value of a claim, nil where the request names none of this name.
func (r *Request) Claim(name string) json.RawMessage {
	i, found := slices.BinarySearchFunc(r.Claims, name, func(c Claim, name string) int { return strings.Compare(c.Name, name) })
	if !found {
		return nil
	}
	return r.Claims[i].Value
}

// Entry is one request, or what is wrong with its text.
type Entry struct {
	Request
	// Problem is invalid_request or too_large; nil where the request could be read.
	Problem *api.Problem
}

// Parse reads a request strictly (docs/decisions, strict JSON). Its claims are
// parts of the body, which has to stay as it is while they are used.
func Parse(body []byte) Entry {
	var e Entry
	s := newScan(body)
	if e.scan(&s) && s.end() {
		return e
	}
	return parseAny(body)
}

// parseAny is Parse for requests of every form.
func parseAny(body []byte) Entry {
	var req api.SignRequest
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return Entry{Problem: Invalid("%s", clipDetail(err))}
	}
	if name := nullMember(body); name != "" {
		return Entry{Problem: Invalid("member %q cannot be null; leave it out", name)}
	}
	e := Entry{Request: Request{Profile: req.Profile, Subject: req.Subject, Audience: req.Audience}}
	if e.HasTTL = req.TTLSeconds != nil; e.HasTTL {
		e.TTL = *req.TTLSeconds
	}
	for name, value := range req.Claims {
		e.Claims = append(e.Claims, Claim{Name: name, Value: value})
	}
	slices.SortFunc(e.Claims, Claim.Compare)
	return e
}

// nullMember is the first member of a request that is null. To Go that is as if
// it were not there; to the caller it may mean something.
func nullMember(body []byte) string {
	if !bytes.Contains(body, []byte("null")) {
		return ""
	}
	var members map[string]json.RawMessage
	if strictjson.Unmarshal(body, &members) != nil {
		return "" // it was read before
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if string(bytes.TrimSpace(members[name])) == "null" {
			return name
		}
	}
	return ""
}

// ParseBatch reads the requests of a batch, at most api.MaxBatch, of at most
// api.MaxSignBytes each. The batch is refused as a whole if it
// is not strict JSON as a whole. Each request is judged alone.
func ParseBatch(body []byte) ([]Entry, *api.Problem) {
	if list, plain := scanBatch(body); plain {
		return list, nil
	}
	return parseAnyBatch(body)
}

// parseAnyBatch is ParseBatch for batches of every form.
func parseAnyBatch(body []byte) ([]Entry, *api.Problem) {
	var req struct {
		Requests json.RawMessage `json:"requests"`
	}
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return nil, Invalid("%s", clipDetail(err))
	}
	if len(req.Requests) == 0 || req.Requests[0] != '[' {
		return nil, Invalid("requests is missing, or no array: it has to be an array of what POST /v1/sign takes")
	}
	texts, err := strictjson.Elements(req.Requests, api.MaxBatch)
	switch {
	case errors.Is(err, strictjson.ErrTooMany):
		return nil, api.NewProblem(api.TooLarge, fmt.Sprintf("too many requests in one batch: at most %d", api.MaxBatch))
	case err != nil: // it was found sound above
		return nil, Invalid("%s", clipDetail(err))
	}
	list := make([]Entry, len(texts))
	for i, one := range texts {
		if len(one) > api.MaxSignBytes {
			list[i].Problem = TooLarge(api.MaxSignBytes)
			continue
		}
		list[i] = Parse(one)
	}
	return list, nil
}
