package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// asked is an api.SignRequest as the judges read it. The values of claims are
// parts of the body.
type asked struct {
	profile  string
	subject  string
	audience []string
	ttl      int64 // seconds
	hasTTL   bool
	claims   []Claim // sorted by name, each once
}

// claim is the value of a claim, nil where the request names none of this name.
func (a *asked) claim(name string) json.RawMessage {
	i, found := slices.BinarySearchFunc(a.claims, name, func(c Claim, name string) int { return strings.Compare(c.Name, name) })
	if !found {
		return nil
	}
	return a.claims[i].Value
}

func sortClaims(list []Claim) {
	slices.SortFunc(list, func(a, b Claim) int { return strings.Compare(a.Name, b.Name) })
}

// entry is one request, or what is wrong with its text.
type entry struct {
	asked
	prob *api.Problem
}

// parse reads a request strictly.
func parse(body []byte) entry {
	var e entry
	s := newScan(body)
	if e.scan(&s) && s.end() {
		return e
	}
	return parseAny(body)
}

// parseAny is parse for requests of every form.
func parseAny(body []byte) entry {
	var req api.SignRequest
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return entry{prob: invalid("%s", clipDetail(err))}
	}
	e := entry{asked: asked{profile: req.Profile, subject: req.Subject, audience: req.Audience}}
	if e.hasTTL = req.TTLSeconds != nil; e.hasTTL {
		e.ttl = *req.TTLSeconds
	}
	for name, value := range req.Claims {
		e.claims = append(e.claims, Claim{Name: name, Value: value})
	}
	sortClaims(e.claims)
	return e
}

// parseBatch reads the requests of a batch, which is refused as a whole if it
// is not strict JSON as a whole. Each request is judged alone.
func parseBatch(body []byte) ([]entry, *api.Problem) {
	if list, plain := scanBatch(body); plain {
		return list, nil
	}
	return parseAnyBatch(body)
}

// parseAnyBatch is parseBatch for batches of every form.
func parseAnyBatch(body []byte) ([]entry, *api.Problem) {
	var req struct {
		Requests json.RawMessage `json:"requests"`
	}
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return nil, invalid("%s", clipDetail(err))
	}
	if len(req.Requests) == 0 || req.Requests[0] != '[' {
		return nil, invalid("requests is missing, or no array: it has to be an array of what POST /v1/sign takes")
	}
	texts, err := strictjson.Elements(req.Requests, api.MaxBatch)
	switch {
	case errors.Is(err, strictjson.ErrTooMany):
		return nil, api.NewProblem(api.TooLarge, fmt.Sprintf("too many requests in one batch: at most %d", api.MaxBatch))
	case err != nil: // it was found sound above
		return nil, invalid("%s", clipDetail(err))
	}
	list := make([]entry, len(texts))
	for i, one := range texts {
		if len(one) > api.MaxSignBytes {
			list[i].prob = tooLarge(api.MaxSignBytes)
			continue
		}
		list[i] = parse(one)
	}
	return list, nil
}
