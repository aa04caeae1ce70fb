package admin

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
)

// rotate asks for a rotation, by force before it is safe, or for a rollback.
func (a *Admin) rotate(w http.ResponseWriter, r *http.Request) {
	var req api.RotateRequest
	problem := readOrder(w, r, &req)
	if problem == nil {
		problem = checkReason(req.Reason)
	}
	if problem != nil {
		a.deny(w, r, audit.Record{Event: audit.EventRotate}, problem)
		return
	}
	ring := r.PathValue("ring")
	a.carryOut(w, r, order{
		asked: audit.EventRotateAsked, event: audit.EventRotate, message: "ring rotated by an operator", dryRun: req.DryRun,
		rec: audit.Record{Kid: clip(req.To), Reason: req.Reason, Force: req.Force},
		do: func(ctx context.Context, rec *audit.Record) (any, bool, error) {
			before, after, err := a.cfg.Command(ctx, keyring.Command{Rotate: ring, To: req.To, Force: req.Force}, req.DryRun)
			if err != nil {
				return nil, false, err
			}
			resp := rotation(before, after, ring, time.Now())
			resp.DryRun = req.DryRun
			rec.Issuer, rec.Kid = before.Config.Name, resp.ActiveKid
			return resp, resp.Changed, nil
		},
		refuse: func(err error) *api.Problem { return refusal(ring, err) },
	})
}

// revoke asks for keys to be revoked: one, all of a ring, or several.
func (a *Admin) revoke(w http.ResponseWriter, r *http.Request) {
	var req api.RevokeRequest
	problem := readOrder(w, r, &req)
	kid, ring := r.PathValue("kid"), r.PathValue("ring")
	if problem == nil {
		problem = checkRevoke(req, kid == "" && ring == "")
	}
	if problem != nil {
		a.deny(w, r, audit.Record{Event: audit.EventRevoke}, problem)
		return
	}
	kids := slices.Compact(slices.Sorted(slices.Values(req.Kids)))
	if kid != "" {
		kids = []string{kid}
	}
	rec := audit.Record{Reason: req.Reason, SignNow: req.SignNow}
	for _, k := range kids {
		rec.Kids = append(rec.Kids, clip(k))
	}
	a.carryOut(w, r, order{
		asked: audit.EventRevokeAsked, event: audit.EventRevoke, message: "keys revoked by an operator", dryRun: req.DryRun, rec: rec,
		do: func(ctx context.Context, rec *audit.Record) (any, bool, error) {
			cmd := keyring.Command{Revoke: kids, RevokeRing: ring, Force: req.SignNow}
			before, after, err := a.cfg.Command(ctx, cmd, req.DryRun)
			if err != nil {
				return nil, false, err
			}
			resp := revocation(before, after, cmd, req.DryRun, time.Now())
			rec.Issuer, rec.Kids = resp.Issuer, resp.AlreadyRevoked
			for _, k := range resp.Revoked {
				rec.Kids = append(rec.Kids, k.Kid)
			}
			return resp, resp.Changed, nil
		},
		refuse: func(err error) *api.Problem { return refusal(ring, err) },
	})
}

func checkRevoke(req api.RevokeRequest, several bool) *api.Problem {
	switch {
	case several && len(req.Kids) == 0:
		return api.NewProblem(api.InvalidRequest, "kids: name the keys to revoke")
	case !several && len(req.Kids) > 0:
		return api.NewProblem(api.InvalidRequest, "kids: this path names what is revoked; leave it out, or use /v1/revoke")
	case slices.Contains(req.Kids, ""):
		return api.NewProblem(api.InvalidRequest, "kids: one of them is empty")
	case strings.TrimSpace(req.Reason) == "" && !req.DryRun:
		return api.NewProblem(api.InvalidRequest, "reason: say why these keys are revoked; it goes into the audit log")
	}
	return checkReason(req.Reason)
}

// acceptManifest asks for this replica's last manifest to be put in the place
// of one that is frozen, lost or corrupt.
func (a *Admin) acceptManifest(w http.ResponseWriter, r *http.Request) {
	var req api.AcceptRequest
	problem := readOrder(w, r, &req)
	if problem == nil {
		problem = checkReason(req.Reason)
	}
	if problem != nil {
		a.deny(w, r, audit.Record{Event: audit.EventAccept}, problem)
		return
	}
	issuer := r.PathValue("issuer")
	a.carryOut(w, r, order{
		asked: audit.EventAcceptAsked, event: audit.EventAccept, message: "manifest accepted by an operator", dryRun: req.DryRun,
		rec: audit.Record{Reason: req.Reason, Force: req.Force},
		do: func(ctx context.Context, rec *audit.Record) (any, bool, error) {
			got, err := a.cfg.AcceptManifest(ctx, issuer, req.DryRun, req.Force)
			if err != nil {
				return nil, false, err
			}
			rec.Kids = slices.Concat(got.Retired, got.Dropped, got.Destroyed)
			return acceptance(issuer, got, req.DryRun, time.Now()), true, nil
		},
		refuse: func(err error) *api.Problem { return refusal(issuer, err) },
	})
}

// refusal says why an operator's order was not carried out. name is the ring or
// the issuer that it named.
func refusal(name string, err error) *api.Problem {
	var early *keyring.NotSafeYetError
	var lower *keyring.LowerMarkError
	name = strings.ToValidUTF8(clip(name), "?")
	switch {
	case errors.As(err, &early):
		told := *early
		told.SafeAt = whole(early.SafeAt)
		p := api.NewProblem(api.NotSafeYet, told.Error())
		p.SafeAt, p.WaitingFor = told.SafeAt, told.Waiting
		return p
	case errors.As(err, &lower):
		return api.NewProblem(api.MarkTooLow, lower.Error())
	case errors.Is(err, keyring.ErrUnknownRing):
		return api.NewProblem(api.NotFound, "no ring "+name+"; GET /v1/issuers lists them")
	case errors.Is(err, ErrUnknownIssuer):
		return api.NewProblem(api.NotFound, "no issuer "+name+"; GET /v1/issuers lists them")
	case errors.Is(err, keyring.ErrUnknownKey):
		return api.NewProblem(api.NotFound, err.Error()+"; GET /v1/issuers lists them")
	case errors.Is(err, keyring.ErrClosed):
		return api.NewProblem(api.KeyClosed, err.Error())
	case errors.Is(err, keyring.ErrNoKey):
		return api.NewProblem(api.KeyMissing, err.Error())
	case errors.Is(err, keyring.ErrNotFrozen):
		return api.NewProblem(api.NotFrozen, err.Error())
	case errors.Is(err, keyring.ErrNothingDone):
		return api.NewProblem(api.Unavailable, err.Error())
	case errors.Is(err, keyring.ErrConflict):
		return api.NewProblem(api.Unavailable, "another replica changed the manifest at the same time; look at GET /v1/issuers and ask again")
	}
	return api.NewProblem(api.Unavailable, err.Error()+"; GET /v1/issuers tells whether it has happened")
}
