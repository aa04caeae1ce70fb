package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/keyring"
)

// Limits of one request on the admin socket, in bytes.
const (
	maxBody   = 16 << 10
	maxReason = 1000
)

// AdminHandler answers on the admin socket. Its server must have
// unixsock.ConnContext, or everybody is refused.
func (a *Admin) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/issuers", a.guard(audit.EventAdmin, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, a.issuers(time.Now()))
	}))
	mux.HandleFunc("POST /v1/rings/{ring}/rotate", a.guard(audit.EventRotate, a.rotate))
	mux.HandleFunc("/", a.guard(audit.EventAdmin, notFound))
	return mux
}

func notFound(w http.ResponseWriter, r *http.Request) {
	api.NewProblem(api.NotFound, "there is no "+clip(r.Method+" "+r.URL.Path)+" here").WriteTo(w)
}

// rotate asks for a rotation. The audit log holds what was asked before it is
// done; a crash in between leaves rotate_asked without an outcome, which the
// manifest then tells. A dry run changes nothing and is not recorded.
func (a *Admin) rotate(w http.ResponseWriter, r *http.Request) {
	ring := r.PathValue("ring")
	req, problem := readRotate(w, r)
	if problem != nil {
		a.deny(w, r, audit.Record{Event: audit.EventRotate}, problem)
		return
	}
	if !req.DryRun {
		if err := a.record(r, audit.Record{Event: audit.EventRotateAsked, Decision: audit.Allow, Reason: req.Reason}); err != nil {
			a.cfg.Logger.Error("audit log", "event", audit.EventRotateAsked, "ring", ring, "error", err)
			api.NewProblem(api.Unavailable, "nothing was done, since the audit log cannot be written: "+err.Error()).WriteTo(w)
			return
		}
	}
	resp, err := a.cfg.Rotate(r.Context(), ring, req)
	switch {
	case err != nil && req.DryRun:
		rotateProblem(ring, err).WriteTo(w)
	case err != nil:
		a.deny(w, r, audit.Record{Event: audit.EventRotate}, rotateProblem(ring, err))
	default:
		if !req.DryRun {
			a.rotated(r, req, resp)
		}
		resp.RetiredUntil = utc(resp.RetiredUntil)
		writeJSON(w, http.StatusOK, resp)
	}
}

// rotated tells log and audit log what happened. It has happened, so an audit
// log that fails now is no reason to call it a failure; that it was asked for
// is recorded.
func (a *Admin) rotated(r *http.Request, req api.RotateRequest, resp api.RotateResponse) {
	a.cfg.Logger.Info("ring rotated by an operator", "ring", resp.Ring, "kid", resp.ActiveKid, "retired_kid", resp.RetiredKid, "reason", req.Reason)
	err := a.record(r, audit.Record{Event: audit.EventRotate, Decision: audit.Allow, Kid: resp.ActiveKid, Reason: req.Reason})
	if err != nil {
		a.cfg.Logger.Error("audit log", "event", audit.EventRotate, "ring", resp.Ring, "kid", resp.ActiveKid, "error", err)
	}
}

// readRotate reads a request; an empty body asks for a plain rotation.
func readRotate(w http.ResponseWriter, r *http.Request) (api.RotateRequest, *api.Problem) {
	var req api.RotateRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return req, api.NewProblem(api.TooLarge, "a rotation is asked for in at most 16 KiB")
	case err != nil:
		return req, api.NewProblem(api.InvalidRequest, "the request ended early")
	}
	if len(body) > 0 {
		if err := strictjson.Unmarshal(body, &req); err != nil {
			return req, api.NewProblem(api.InvalidRequest, err.Error())
		}
	}
	switch {
	case req.To != "":
		return req, api.NewProblem(api.InvalidRequest, "to: this build cannot roll back to a given key; leave it out to rotate to the standby key")
	case req.Force:
		return req, api.NewProblem(api.InvalidRequest, "force: this build cannot rotate to a key that is not proven; leave it out, and safe_at says when it will be")
	case len(req.Reason) > maxReason:
		return req, api.NewProblem(api.InvalidRequest, "reason: at most 1000 bytes")
	}
	return req, nil
}

// rotateProblem says what kept a rotation from happening.
func rotateProblem(ring string, err error) *api.Problem {
	var early *keyring.NotSafeYetError
	switch {
	case errors.As(err, &early):
		p := api.NewProblem(api.NotSafeYet, early.Error())
		p.SafeAt = utc(early.SafeAt)
		return p
	case errors.Is(err, ErrUnknownRing):
		return api.NewProblem(api.NotFound, "no ring "+strings.ToValidUTF8(clip(ring), "?")+"; GET /v1/issuers lists them")
	case errors.Is(err, keyring.ErrConflict):
		return api.NewProblem(api.Unavailable, "another replica changed the manifest at the same time; look at GET /v1/issuers and ask again")
	}
	return api.NewProblem(api.Unavailable, err.Error()+"; GET /v1/issuers tells whether it has happened")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil { // a time beyond the year 9999 at the most
		api.NewProblem(api.Unavailable, "the answer cannot be written as JSON: "+err.Error()).WriteTo(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client has gone: nobody to tell
}
