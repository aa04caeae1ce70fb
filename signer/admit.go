package signer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/gate"
	"github.com/keyturn/keyturn/signer/profile"
)

// batchWait is how long a batch waits until it may be held in memory.
const batchWait = 10 * time.Second

// maxBatches is how many batches are in memory at once, whoever sent them and
// through whichever socket: each holds its body, several times over, and its
// answer. One user gets three quarters of them: he may hold them as long as he
// likes to take for sending their bodies.
func maxBatches() int { return max(4, runtime.GOMAXPROCS(0)) }

// admit answers a caller whom no profile allows before a byte of the body is
// read: whoever may not sign shall not cost memory. It says whether to go on.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) (profile.Caller, bool) {
	began, c := time.Now(), h.caller(r)
	if h.signer.profiles.Load().AllowsAny(c) {
		return c, true
	}
	turn, err := h.signer.turns.Enter(r.Context(), c.Peer.UID)
	if err != nil {
		busy(err).WriteTo(w)
		return c, false
	}
	turn.Leave() // it was his; it is not held while the log is written
	rec := newRecord(c)
	rec.Reason = "no profile allows the caller on this socket"
	switch {
	case !c.Known:
		rec.Reason = "the kernel did not say who the caller is"
	case c.Peer.UID == unixsock.Overflow:
		rec.Reason = "uid 65534 stands for everybody whom this user namespace does not know: no profile allows it"
	}
	prob := h.signer.deny(r.Context(), rec, forbidden())
	h.signer.observe(Outcome{Code: prob.Code, Took: time.Since(began)})
	prob.WriteTo(w)
	return c, false
}

// batchTurn waits until a batch may be held in memory.
func (s *Signer) batchTurn(ctx context.Context, c profile.Caller) (gate.Turn, *api.Problem) {
	wait, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	turn, err := s.batches.Enter(wait, c.Peer.UID)
	switch {
	case err == nil:
		return turn, nil
	case ctx.Err() != nil:
		return turn, stopping()
	}
	return turn, api.NewProblem(api.Unavailable, "too many batches are being signed at once; ask again, or send smaller ones")
}

func stopping() *api.Problem {
	return api.NewProblem(api.Unavailable, "the daemon is stopping; ask again")
}

// busy is the answer to whoever gets no turn.
func busy(err error) *api.Problem {
	if errors.Is(err, gate.ErrBusy) {
		return api.NewProblem(api.RateLimited, "too many requests are waiting for their turn; ask again, and use fewer connections at once or /v1/sign/batch")
	}
	return stopping() // or the caller has gone
}

// tooOften is the answer to whoever has used up a profile's rate.
func tooOften(p *profile.Profile, retry time.Duration) *api.Problem {
	prob := api.NewProblem(api.RateLimited, fmt.Sprintf("the profile lets each caller sign %d times a second; ask again in a while", p.Rate.PerSecond))
	prob.RetryAfter = retry + time.Second - time.Nanosecond // it is sent in whole seconds
	return prob
}
