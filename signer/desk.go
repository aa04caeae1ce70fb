package signer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/signer/keys"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
)

// desk is the memory that a request is worked on with. It is used again: at
// tens of thousands of requests a second, allocating it anew would cost as much as
// reading the requests.
type desk struct {
	body      []byte
	claims    []byte // of one token, before it is encoded
	tokens    []byte // of all decisions
	answer    []byte
	decisions []decision
	records   []audit.Record // of the decisions
	leases    []lease        // of what is in a batch's answer
	released  []audit.Record // the same
	// random is what is left for token IDs: the kernel gives much for the price of little.
	random []byte
}

// desks are those that nobody works on.
var desks = sync.Pool{New: func() any { return new(desk) }}

func newDesk() *desk { return desks.Get().(*desk) }

// mostKept is what a desk may hold to be used again, in bytes: a batch that was
// large once must not be paid for ever after.
const mostKept = 256 << 10

// mostReleased is the same of the records of a batch, in records.
const mostReleased = 256

// isLarge reports whether a desk has grown too large to be kept.
func (d *desk) isLarge() bool {
	return cap(d.body)+cap(d.claims)+cap(d.tokens)+cap(d.answer) > mostKept || cap(d.decisions) > chunkSize || cap(d.released) > mostReleased
}

// clear ends the work: nothing on the desk is used after it. Tokens are
// overwritten, since they outlast what they were asked with.
func (d *desk) clear() {
	if d.isLarge() {
		return
	}
	clear(d.tokens)
	clear(d.answer)
	clear(d.decisions[:cap(d.decisions)])
	clear(d.records[:cap(d.records)])
	clear(d.leases)
	clear(d.released)
	d.leases, d.released = d.leases[:0], d.released[:0]
	d.body, d.claims, d.tokens, d.answer, d.decisions = d.body[:0], d.claims[:0], d.tokens[:0], d.answer[:0], d.decisions[:0]
	desks.Put(d)
}

// again makes room for decisions on a number of requests. The tokens of those
// before are still in the answer.
func (d *desk) again(requests int) []decision {
	if cap(d.decisions) < requests {
		d.decisions = make([]decision, requests)
	}
	d.decisions = d.decisions[:requests]
	clear(d.decisions)
	clear(d.tokens)
	d.tokens = d.tokens[:0]
	return d.decisions
}

// lease is until when tokens of a key may be released.
type lease struct {
	view  *keys.View
	kid   string
	until time.Time
}

// lapsed says why an answer may not be released, though each of its tokens might
// have been when it was recorded: a long batch takes its time.
func (d *desk) lapsed(now keys.Moment) *api.Problem {
	for _, l := range d.leases {
		if prob := now.Lapsed(l.view, l.kid, l.until); prob != nil {
			return prob
		}
	}
	return nil
}

// note keeps what has to hold when the answer is released, and on whose record
// it is: the earliest lease of each key.
func (d *desk) note(one *decision) {
	d.released = append(d.released, one.rec)
	for i := range d.leases {
		if l := &d.leases[i]; l.view == one.view && l.kid == one.rec.Kid {
			if one.until.Before(l.until) {
				l.until = one.until
			}
			return
		}
	}
	d.leases = append(d.leases, lease{one.view, one.rec.Kid, one.until})
}

// newID is a jti: 128 random bits that no other token gets.
func (d *desk) newID() string {
	const size, many = 16, 32
	if len(d.random) < size {
		d.random = make([]byte, many*size)
		_, _ = rand.Read(d.random) // never fails: crypto/rand ends the process first
	}
	id := base64.RawURLEncoding.EncodeToString(d.random[:size])
	d.random = d.random[size:]
	return id
}

// decision is what became of one request, from its parsing to its record.
type decision struct {
	began time.Time
	rec   audit.Record
	out   Outcome
	// token may be released once the record is kept; prob is nil then. It is a
	// part of the desk's tokens and lives ttl seconds.
	token []byte
	ttl   int64
	prob  *api.Problem
	// view and until are the lease under which it was signed.
	view  *keys.View
	until time.Time
}

// appendTo writes an api.SignResponse.
func (d *decision) appendTo(dst []byte) []byte {
	dst = append(append(dst, `{"token":"`...), d.token...) // base64url and dots
	dst = appendText(append(dst, `","kid":`...), d.rec.Kid)
	dst = d.rec.ExpiresAt.AppendFormat(append(dst, `,"expires_at":"`...), time.RFC3339)
	dst = strconv.AppendInt(append(dst, `","expires_in":`...), d.ttl, 10)
	return append(dst, '}')
}

// judgeOne decides on one request in its caller's turn. Nobody may hear of it
// before commit.
func (s *Signer) judgeOne(ctx context.Context, c profile.Caller, dk *desk) *decision {
	d := &dk.again(1)[0]
	d.began, d.rec = time.Now(), newRecord(c)
	turn, err := s.turns.Enter(ctx, c.Peer.UID)
	if err != nil {
		d.prob = busy(err)
		return d
	}
	defer turn.Leave()
	e := request.Parse(dk.body)
	s.decide(c, &e, dk, d)
	return d
}

// judgeSome decides on some requests of a batch, each alone and in its turn, so
// that a long batch does not keep others waiting.
func (s *Signer) judgeSome(ctx context.Context, c profile.Caller, list []request.Entry, dk *desk) []decision {
	decisions := dk.again(len(list))
	for i := range list {
		d := &decisions[i]
		d.began, d.rec = time.Now(), newRecord(c)
		if ctx.Err() != nil { // the caller has gone, or the daemon is about to
			d.prob = stopping()
			continue
		}
		s.inTurn(ctx, c, &list[i], dk, d)
	}
	return decisions
}

func (s *Signer) inTurn(ctx context.Context, c profile.Caller, e *request.Entry, dk *desk, d *decision) {
	turn, err := s.turns.Enter(ctx, c.Peer.UID)
	if err != nil {
		d.prob = busy(err)
		return
	}
	defer turn.Leave() // also where something panics: net/http lives on, and the slot with it
	s.decide(c, e, dk, d)
}
