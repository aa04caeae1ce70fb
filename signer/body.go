package signer

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/signer/request"
)

// mostDrained is how much of a body that is too large is read all the same, in
// bytes, and drainFor for how long.
const (
	mostDrained = 1 << 20
	drainFor    = 300 * time.Millisecond
)

// mostAhead is how much memory is made ready for a body on its caller's word, in
// bytes. A batch gets all that it announces: there are few, each in its turn.
const mostAhead = 16 << 10

// read takes the body as it is: no Content-Type is demanded, so that curl -d works.
func (d *desk) read(w http.ResponseWriter, r *http.Request, most int64) *api.Problem {
	var err error
	switch size := r.ContentLength; {
	case size > most:
		if r.Close { // else net/http reads on by itself
			drain(w, r)
		}
		return request.TooLarge(most)
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

// bodyProblem tells what was wrong with a body that could not be read.
func bodyProblem(err error, most int64) *api.Problem {
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return request.TooLarge(most)
	case err != nil:
		return request.Invalid("the body ended before its time: it was cut off, or came too slowly")
	}
	return nil
}
