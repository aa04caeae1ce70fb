package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/internal/unixsock"
)

// Rule matches callers of the admin socket. Its fields are ANDed.
type Rule struct {
	UID *uint32
	// GID is the caller's primary group or a supplementary one.
	GID *uint32
}

func (r Rule) check() error {
	if r.UID == nil && r.GID == nil {
		return errors.New("the rule is empty and would match everybody: name a uid or a gid")
	}
	return nil
}

func (r Rule) matches(p unixsock.Peer) bool {
	return (r.UID == nil || p.HasUID(*r.UID)) && (r.GID == nil || p.HasGID(*r.GID))
}

func (a *Admin) allowed(p unixsock.Peer) bool {
	for _, r := range a.cfg.Allow {
		if r.matches(p) {
			return true
		}
	}
	return false
}

// guard lets a request through to next if its caller may use the admin socket.
// Nothing of the request but its line has been read by then.
func (a *Admin) guard(event audit.Event, next func(http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, known := unixsock.PeerFrom(r.Context())
		if known && a.allowed(p) {
			next(w, r)
			return
		}
		detail := fmt.Sprintf("uid %d may not use the admin socket; an operator lists who may under listen.admin.allow", p.UID)
		if !known {
			detail = "the kernel does not tell who is calling"
		}
		a.deny(w, r, audit.Record{Event: event, Reason: clip(r.Method + " " + r.URL.Path)}, api.NewProblem(api.Forbidden, detail))
	}
}

// deny records a refusal and answers with it. It is answered also where it
// could not be recorded: nothing is released by it.
func (a *Admin) deny(w http.ResponseWriter, r *http.Request, rec audit.Record, problem *api.Problem) {
	rec.Decision, rec.Code = audit.Deny, string(problem.Code)
	if rec.Reason == "" {
		rec.Reason = problem.Detail
	}
	if err := a.record(r, rec); err != nil {
		a.cfg.Logger.Error("audit log", "event", rec.Event, "decision", rec.Decision, "error", err)
	}
	problem.WriteTo(w)
}

// record completes a record with who is asking, and writes it.
func (a *Admin) record(r *http.Request, rec audit.Record) error {
	if a.cfg.Audit == nil {
		return nil
	}
	p, _ := unixsock.PeerFrom(r.Context())
	rec.Time, rec.Socket = time.Now(), a.cfg.Socket
	rec.UID, rec.GID, rec.PID = p.UID, p.GID, p.PID
	rec = named(r, rec)
	// What was decided is recorded also when the caller has hung up meanwhile.
	return a.cfg.Audit.Append(context.WithoutCancel(r.Context()), rec)
}

// named completes a record with what the path names.
func named(r *http.Request, rec audit.Record) audit.Record {
	for name, field := range map[string]*string{"ring": &rec.Ring, "kid": &rec.Kid, "issuer": &rec.Issuer} {
		if *field == "" {
			*field = clip(r.PathValue(name))
		}
	}
	return rec
}

// clip bounds what a caller can put into a record.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
