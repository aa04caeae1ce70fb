package signer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
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
	leases    []lease        // of what is in the answer
	// random is what is left for token IDs: the kernel gives much for the price of little.
	random []byte
}

// desks are those that nobody works on.
var desks = sync.Pool{New: func() any { return new(desk) }}

func newDesk() *desk { return desks.Get().(*desk) }

// mostKept is what a desk may hold to be used again, in bytes: a batch that was
// large once must not be paid for ever after.
const mostKept = 256 << 10

// mostDrained is how much of a body that is too large is read all the same, in
// bytes, and drainFor for how long.
const (
	mostDrained = 1 << 20
	drainFor    = 300 * time.Millisecond
)

// mostAhead is how much memory is made ready for a body on its caller's word, in
// bytes. A batch gets all that it announces: there are few, each in its turn.
const mostAhead = 16 << 10

// clear ends the work: nothing on the desk is used after it. Tokens are
// overwritten, since they outlast what they were asked with.
func (d *desk) clear() {
	if cap(d.body)+cap(d.claims)+cap(d.tokens)+cap(d.answer) > mostKept || cap(d.decisions) > chunkSize {
		return
	}
	clear(d.tokens)
	clear(d.answer)
	clear(d.decisions[:cap(d.decisions)])
	clear(d.records[:cap(d.records)])
	clear(d.leases)
	d.leases = d.leases[:0]
	d.body, d.claims, d.tokens, d.answer, d.decisions = d.body[:0], d.claims[:0], d.tokens[:0], d.answer[:0], d.decisions[:0]
	desks.Put(d)
}

// read takes the body as it is: no Content-Type is demanded, so that curl -d works.
func (d *desk) read(w http.ResponseWriter, r *http.Request, most int64) *api.Problem {
	var err error
	switch size := r.ContentLength; {
	case size > most:
		if r.Close { // else net/http reads on by itself
			drain(w, r)
		}
		return tooLarge(most)
	case size >= 0 && (size <= max(mostAhead, int64(cap(d.body))) || most == api.MaxBatchBytes):
		if int64(cap(d.body)) < size {
			d.body = make([]byte, size)
		}
		d.body = d.body[:size]
		_, err = io.ReadFull(r.Body, d.body)
	default: // what was announced is not believed before it is here
		d.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	}
	return bodyProblem(err, most)
}

// drain reads some of a body that is refused: where the connection ends with the
// request, net/http closes it at once, and a caller who is still sending would
// not see the answer. One who sends nothing is not waited for.
func drain(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainFor)) // a server that cannot has set none
	_, _ = io.CopyN(io.Discard, r.Body, mostDrained)
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

// lease is until when tokens of an issuer may be released.
type lease struct {
	view  *view
	until time.Time
}

// lapsed says why an answer may not be released, though each of its tokens might
// have been when it was recorded: a long batch takes its time.
func (d *desk) lapsed() *api.Problem {
	now := time.Now()
	for _, l := range d.leases {
		if prob := l.view.lapsed(l.until, now, l.view.late()); prob != nil {
			return prob
		}
	}
	return nil
}

// note keeps the earliest lease of each issuer.
func (d *desk) note(one *decision) {
	for i := range d.leases {
		if l := &d.leases[i]; l.view == one.view {
			if one.until.Before(l.until) {
				l.until = one.until
			}
			return
		}
	}
	d.leases = append(d.leases, lease{one.view, one.until})
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
	view  *view
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
func (s *Signer) judgeOne(ctx context.Context, c caller, dk *desk) *decision {
	d := &dk.again(1)[0]
	d.began, d.rec = time.Now(), c.record()
	turn, err := s.turns.Enter(ctx, c.peer.UID)
	if err != nil {
		d.prob = busy(err)
		return d
	}
	defer turn.Leave()
	e := parse(dk.body)
	s.decide(c, &e, dk, d)
	return d
}

// judgeSome decides on some requests of a batch, each alone and in its turn, so
// that a long batch does not keep others waiting.
func (s *Signer) judgeSome(ctx context.Context, c caller, list []entry, dk *desk) []decision {
	decisions := dk.again(len(list))
	for i := range list {
		d := &decisions[i]
		d.began, d.rec = time.Now(), c.record()
		if ctx.Err() != nil { // the caller has gone, or the daemon is about to
			d.prob = stopping()
			continue
		}
		s.inTurn(ctx, c, &list[i], dk, d)
	}
	return decisions
}

func (s *Signer) inTurn(ctx context.Context, c caller, e *entry, dk *desk, d *decision) {
	turn, err := s.turns.Enter(ctx, c.peer.UID)
	if err != nil {
		d.prob = busy(err)
		return
	}
	defer turn.Leave() // also where something panics: net/http lives on, and the slot with it
	s.decide(c, e, dk, d)
}
