package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Schema is the version of the anchors' form.
const Schema = 1

// maxHeads is how many heads are kept: an hour's, at one a minute.
const maxHeads = 64

// Anchors are the heads of a replica's log that were kept elsewhere, where who
// can change the log cannot change them. The newest is the last.
type Anchors struct {
	Schema  int    `json:"schema"`
	Replica string `json:"replica"`
	Heads   []Head `json:"heads"`
}

// ErrAnchors: what is stored as anchors are none.
var ErrAnchors = errors.New("no anchors of an audit log")

// ParseAnchors reads a stored document.
func ParseAnchors(doc []byte) (Anchors, error) {
	var a Anchors
	if err := json.Unmarshal(doc, &a); err != nil {
		return a, fmt.Errorf("%w: %w", ErrAnchors, err)
	}
	if a.Schema != Schema {
		return a, fmt.Errorf("%w: schema %d; this keyturn knows %d", ErrAnchors, a.Schema, Schema)
	}
	for _, h := range a.Heads {
		if err := h.check(); err != nil {
			return a, fmt.Errorf("%w: %w", ErrAnchors, err)
		}
	}
	return a, nil
}

func (h Head) check() error {
	var d Digest
	if h.Chain == "" || len(h.Chain) > 64 || h.Seq == 0 || !takeDigest(&d, []byte(h.Hash), "", "") {
		return fmt.Errorf("head %q, seq %d, hash %q", h.Chain, h.Seq, h.Hash)
	}
	return nil
}

// Last is the newest head, if there is any.
func (a Anchors) Last() (Head, bool) {
	if len(a.Heads) == 0 {
		return Head{}, false
	}
	return a.Heads[len(a.Heads)-1], true
}

// With has one head more, and forgets the oldest beyond 64.
func (a Anchors) With(replica string, h Head) Anchors {
	heads := append(slices.Clone(a.Heads), h)
	return Anchors{Schema, replica, heads[max(0, len(heads)-maxHeads):]}
}

// Encode is the document to store.
func (a Anchors) Encode() ([]byte, error) {
	doc, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("encode anchors: %w", err)
	}
	return doc, nil
}

// Same reports whether two heads are the same record.
func (h Head) Same(other Head) bool {
	return h.Chain == other.Chain && h.Seq == other.Seq && h.Hash == other.Hash
}
