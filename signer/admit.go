package signer

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
)

const (
	// maxBatches is how many batches are in memory at once, whoever sent them
	// and through whichever socket: each holds its body, several times over, and its answer.
	maxBatches = 4
	// batchWait is how long another one waits for its turn.
	batchWait = 10 * time.Second
)

// admit answers a caller whom no profile allows before a byte of the body is
// read: whoever may not sign shall not cost memory. It says whether to go on.
func (h *handler) admit(w http.ResponseWriter, r *http.Request) (caller, bool) {
	began, c := time.Now(), h.caller(r)
	for _, p := range h.signer.state.Load().profiles {
		if p.allows(c) {
			return c, true
		}
	}
	rec := c.record()
	rec.Reason = "no profile allows the caller on this socket"
	if !c.known {
		rec.Reason = "the kernel did not say who the caller is"
	}
	h.signer.deny(r.Context(), rec, Outcome{}, forbidden(), began).WriteTo(w)
	return c, false
}

// record is the beginning of each record on what this caller asked for.
func (c caller) record() audit.Record {
	return audit.Record{Event: audit.EventSign, Socket: c.socket, UID: c.peer.UID, GID: c.peer.GID, PID: c.peer.PID}
}

// deny records a refusal and tells the observer; what it returns is the answer.
func (s *Signer) deny(ctx context.Context, rec audit.Record, out Outcome, prob *api.Problem, began time.Time) *api.Problem {
	rec.Time, rec.Decision, rec.Code = time.Now(), audit.Deny, string(prob.Code)
	if rec.Reason == "" {
		rec.Reason = prob.Detail
	}
	if broken := s.record(ctx, rec); broken != nil {
		prob = broken
	}
	out.Code, out.Took = prob.Code, time.Since(began)
	s.observe(out)
	return prob
}

// turn waits until a batch may be held in memory. The caller gives it back
// with leave, where there is no problem.
func (s *Signer) turn(ctx context.Context) *api.Problem {
	wait, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	select {
	case s.batches <- struct{}{}:
		return nil
	case <-wait.Done():
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return api.NewProblem(api.Unavailable, "the daemon is stopping; ask again")
	}
	return api.NewProblem(api.Unavailable, "too many batches are being signed at once; ask again, or send smaller ones")
}

func (s *Signer) leave() { <-s.batches }
