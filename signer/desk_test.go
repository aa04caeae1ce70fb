package signer

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
)

// What a desk held is not there for whoever works on it next, nor for whoever
// reads the memory: tokens outlast the requests that they were made for.
func TestDeskIsCleared(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	dk := newDesk()
	dk.body = append(dk.body, `{"profile":"p-ES256","subject":"u"}`...)
	d := w.s.judgeOne(t.Context(), alice, dk)
	if w.s.commit(t.Context(), dk); d.prob != nil {
		t.Fatal(d.prob)
	}
	dk.note(d)
	dk.answer = d.appendTo(dk.answer)
	tokens, answer := dk.tokens, dk.answer
	decisions, records, leases, released := dk.decisions, dk.records, dk.leases, dk.released
	if !bytes.Contains(answer, tokens) || len(tokens) == 0 || len(released) != 1 {
		t.Fatal("the desk holds no token")
	}
	dk.clear()
	for name, held := range map[string][]byte{"tokens": tokens, "answer": answer} {
		if slices.ContainsFunc(held, func(b byte) bool { return b != 0 }) {
			t.Errorf("%s: %.20q is left", name, held)
		}
	}
	if decisions[0].token != nil || decisions[0].view != nil || records[0].JTI != "" || leases[0].view != nil || released[0].JTI != "" {
		t.Error("decisions, records or leases are left")
	}
}

// A desk that one large batch has made large is not kept, and a usual one is.
func TestLargeDesksAreNotKept(t *testing.T) {
	const mega = 1 << 20
	for name, tc := range map[string]struct {
		d     desk
		large bool
	}{
		"new":     {desk{}, false},
		"usual":   {desk{body: make([]byte, 16<<10), tokens: make([]byte, 64<<10), answer: make([]byte, 64<<10), decisions: make([]decision, chunkSize), released: make([]audit.Record, 64)}, false},
		"body":    {desk{body: make([]byte, mega)}, true},
		"claims":  {desk{claims: make([]byte, mega)}, true},
		"tokens":  {desk{tokens: make([]byte, mega)}, true},
		"answer":  {desk{answer: make([]byte, mega)}, true},
		"all":     {desk{body: make([]byte, mega/8), claims: make([]byte, mega/8), tokens: make([]byte, mega/8), answer: make([]byte, mega/8)}, true},
		"records": {desk{released: make([]audit.Record, api.MaxBatch)}, true},
	} {
		if got := tc.d.isLarge(); got != tc.large {
			t.Errorf("%s: large %t", name, got)
		}
	}
}

// What a caller sends as a profile's name is kept in part only: the log, and
// those who count denials, hold it for a while.
func TestLongNameIsClipped(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	if _, prob := w.ask(`{"profile":"` + strings.Repeat("x", 60_000) + `"}`); prob == nil {
		t.Fatal("signed")
	}
	if got := w.rec.all()[0].Profile; len(got) > 70 || !strings.HasPrefix(got, "xxx") {
		t.Errorf("the record has a profile of %d bytes", len(got))
	}
}
