package signer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/signer/profile"
)

// Recorder keeps the decisions. When AppendAll returns nil all records are
// kept, else none is: only then are tokens released. It is called from many goroutines.
type Recorder interface {
	AppendAll(ctx context.Context, records []audit.Record) error
}

// keep completes the records and writes them.
func (s *Signer) keep(ctx context.Context, dk *desk) *api.Problem {
	if s.audit == nil {
		return nil
	}
	list := dk.decisions
	// The last look at the leases before the log says that they were kept.
	written := s.keys.At(time.Now())
	for i := range list {
		d := &list[i]
		if d.prob == nil {
			d.prob = written.Lapsed(d.view, d.rec.Kid, d.until)
		}
		if d.prob != nil {
			d.rec = denied(d.rec, d.prob)
		}
	}
	dk.records = dk.records[:0]
	for i := range list {
		dk.records = append(dk.records, list[i].rec)
	}
	return s.record(ctx, dk.records...)
}

// newRecord is the beginning of each record on what this caller asked for.
func newRecord(c profile.Caller) audit.Record {
	return audit.Record{Event: audit.EventSign, Socket: c.Socket, UID: c.Peer.UID, GID: c.Peer.GID, PID: c.Peer.PID}
}

// withhold records that the tokens of a batch, whose records allow them, were
// not released; what it returns is the answer.
func (s *Signer) withhold(ctx context.Context, dk *desk, prob *api.Problem) *api.Problem {
	for list := range slices.Chunk(dk.released, chunkSize) {
		for i := range list {
			list[i] = denied(list[i], prob)
		}
		if broken := s.record(ctx, list...); broken != nil {
			return broken
		}
	}
	return prob
}

// deny records a refusal; what it returns is the answer.
func (s *Signer) deny(ctx context.Context, rec audit.Record, prob *api.Problem) *api.Problem {
	if broken := s.record(ctx, denied(rec, prob)); broken != nil {
		return broken
	}
	return prob
}

// denied makes the record of a refusal. A token that was signed under a lease
// that has ended, or by a key that was revoked meanwhile, is not released, and its
// jti tells which one it was.
func denied(rec audit.Record, prob *api.Problem) audit.Record {
	rec.Time, rec.Decision, rec.Code = time.Now(), audit.Deny, string(prob.Code)
	// The log may keep a denial for a while: not with the whole body that its
	// texts are parts of.
	rec.Profile, rec.Subject, rec.Audiences = strings.Clone(rec.Profile), strings.Clone(rec.Subject), slices.Clone(rec.Audiences)
	for i, a := range rec.Audiences {
		rec.Audiences[i] = strings.Clone(a)
	}
	if rec.Reason == "" {
		rec.Reason = prob.Detail
	}
	return rec
}

// auditTime bounds the wait for a log that hangs.
const auditTime = 5 * time.Second

// record keeps decisions, all or none. The problem that it returns is what the caller
// gets instead of the decision: without a record nothing is released. The
// decision stands whether or not the caller is still there: one that hangs up
// must not keep it out of the log, nor make the log look broken.
func (s *Signer) record(ctx context.Context, records ...audit.Record) *api.Problem {
	if s.audit == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTime)
	defer cancel()
	err := s.audit.AppendAll(ctx, records)
	if err == nil {
		if s.auditBroken.Load() != nil && s.auditBroken.Swap(nil) != nil {
			s.log.Info("audit log is written again")
		}
		return nil
	}
	if now := time.Now(); s.auditBroken.CompareAndSwap(nil, &now) { // one line for one cause
		s.log.Error("audit log not written", "required", !s.auditOptional, "error", err)
	}
	if s.auditOptional {
		return nil
	}
	return api.NewProblem(api.Unavailable, "the audit log cannot be written, so nothing is signed; see the daemon's log")
}
