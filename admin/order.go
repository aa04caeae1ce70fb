package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// Limits of one request on the admin socket, in bytes.
const (
	maxBody   = 16 << 10
	maxReason = 1000
)

// order is what an operator wants done to a manifest.
type order struct {
	asked, event audit.Event
	// message tells the log that it was done.
	message string
	dryRun  bool
	// rec says what is asked; do adds what was done, and reports whether there
	// was anything to do.
	rec audit.Record
	do  func(ctx context.Context, rec *audit.Record) (answer any, changed bool, err error)
	// refuse says in a problem why it was not done.
	refuse func(error) *api.Problem
}

// orderTimeout is longer than the rotator lets one step take.
const orderTimeout = 90 * time.Second

// carryOut does what an operator asks. The audit log holds that it was asked
// before it is done; a crash in between leaves that record without an outcome,
// which the manifest then tells. A dry run changes nothing and is not recorded.
func (a *Admin) carryOut(w http.ResponseWriter, r *http.Request, o order) {
	if !o.dryRun {
		rec := o.rec
		rec.Event, rec.Decision = o.asked, audit.Allow
		err := a.record(r, rec)
		if err != nil {
			a.cfg.Logger.Error("audit log", "event", o.asked, "error", err)
		}
		if err != nil && !a.cfg.AuditOptional {
			api.NewProblem(api.Unavailable, "nothing was done, since the audit log cannot be written: "+err.Error()).WriteTo(w)
			return
		}
	}
	rec := named(r, o.rec)
	rec.Event = o.event
	// Who hangs up has asked all the same, and the record must tell what came of it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), orderTimeout)
	defer cancel()
	answer, changed, err := o.do(ctx, &rec)
	switch {
	case err != nil && o.dryRun:
		o.refuse(err).WriteTo(w)
	case err != nil:
		rec.Reason = "" // it was recorded when it was asked; here stands why not
		a.deny(w, r, rec, o.refuse(err))
	default:
		if !o.dryRun {
			message := o.message
			if !changed {
				message = "order of an operator changes nothing"
			}
			a.carriedOut(r, message, rec)
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// carriedOut tells log and audit log what happened. It has happened, so an
// audit log that fails now is no reason to call it a failure; that it was asked
// for is recorded.
func (a *Admin) carriedOut(r *http.Request, message string, rec audit.Record) {
	rec.Decision = audit.Allow
	var attrs []slog.Attr
	for _, at := range []slog.Attr{slog.String("issuer", rec.Issuer), slog.String("ring", rec.Ring), slog.String("kid", rec.Kid), slog.String("reason", rec.Reason)} {
		if at.Value.String() != "" {
			attrs = append(attrs, at)
		}
	}
	if len(rec.Kids) > 0 {
		attrs = append(attrs, slog.Any("kids", rec.Kids))
	}
	attrs = append(attrs, slog.Bool("force", rec.Force || rec.SignNow))
	a.cfg.Logger.LogAttrs(r.Context(), slog.LevelWarn, message, attrs...)
	if err := a.record(r, rec); err != nil {
		a.cfg.Logger.Error("audit log", "event", rec.Event, "ring", rec.Ring, "kid", rec.Kid, "error", err)
	}
}

// readOrder reads a request into req; an empty body asks for nothing special.
func readOrder(w http.ResponseWriter, r *http.Request, req any) *api.Problem {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return api.NewProblem(api.TooLarge, "an order is given in at most 16 KiB")
	case err != nil:
		return api.NewProblem(api.InvalidRequest, "the request ended early")
	}
	if len(body) > 0 {
		if err := strictjson.Unmarshal(body, req); err != nil {
			return api.NewProblem(api.InvalidRequest, err.Error())
		}
	}
	return nil
}

func checkReason(reason string) *api.Problem {
	if len(reason) > maxReason {
		return api.NewProblem(api.InvalidRequest, "reason: at most 1000 bytes")
	}
	return nil
}
