package admin

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// What api.Health.Status says.
const (
	statusOK          = "ok"
	statusDegraded    = "degraded"
	statusUnavailable = "unavailable"
)

// Codes of what admin itself finds wrong.
const (
	CodeNoSet      = "no_set"      // an issuer has no key set that could be served
	CodeSetExpired = "set_expired" // the set is too old to be served
	CodeNoSigner   = "no_signer"   // this process does not have the role signer
	CodeNotAlive   = "not_alive"   // the main loops have stopped turning
)

// health is what the two readiness probes answer.
type health struct{ public, signer api.Health }

// judge says how this process is. Its public set is good while every issuer has
// one that may be served and no alarm is fatal; everything else only degrades
// it. A signer that cannot sign, and a loop that does not turn, degrade the public
// answer as well, for the reader's sake.
func (a *Admin) judge(now time.Time) health {
	var bad bool
	var reasons []api.Reason
	for _, name := range a.cfg.Issuers {
		if r, found := a.unservable(name, now); found {
			bad, reasons = true, append(reasons, r)
		}
	}
	reasons = append(reasons, a.alive().Reasons...)
	for _, al := range a.cfg.Alarms() {
		bad, reasons = bad || al.Fatal, append(reasons, reason(al))
	}
	signer := api.Health{Status: statusUnavailable, Reasons: []api.Reason{{Code: CodeNoSigner, Message: "this process does not have the role signer"}}}
	if a.cfg.SignerAlarms != nil {
		var cannot []api.Reason
		for _, al := range a.cfg.SignerAlarms() {
			cannot = append(cannot, reason(al))
		}
		signer = api.Health{Status: status(len(cannot) > 0, nil), Reasons: tidy(cannot)}
		reasons = append(reasons, cannot...)
	}
	return health{public: api.Health{Status: status(bad, reasons), Reasons: tidy(reasons)}, signer: signer}
}

func status(bad bool, reasons []api.Reason) string {
	switch {
	case bad:
		return statusUnavailable
	case len(reasons) > 0:
		return statusDegraded
	}
	return statusOK
}

// unservable says why an issuer's set cannot be served, if so.
func (a *Admin) unservable(issuer string, now time.Time) (api.Reason, bool) {
	s := a.snapshot(issuer)
	switch {
	case s == nil:
		return api.Reason{Code: CodeNoSet, Issuer: issuer, Message: "no manifest has been read yet; where this lasts, another reason or the log says why"}, true
	case !s.Servable():
		return api.Reason{Code: CodeNoSet, Issuer: issuer, Message: "the issuer has no keys yet; they are made within seconds by a process that has the role rotator"}, true
	case !s.Lease.IsZero() && !now.Before(s.ServeUntil()): // before the first lease nothing could be signed
		return api.Reason{Code: CodeSetExpired, Issuer: issuer, Since: utc(s.ServeUntil()),
			Message: "the manifest has not been renewed for too long, so keys may have been added that this process does not know; mend the way to the store"}, true
	}
	return api.Reason{}, false
}

func reason(al keyring.Alarm) api.Reason {
	return api.Reason{Code: al.Code, Issuer: al.Issuer, Target: al.Target, Kid: al.Kid, Message: al.Message, Since: utc(al.Since)}
}

// tidy sorts reasons and drops those that two parts report alike.
func tidy(reasons []api.Reason) []api.Reason {
	out := append([]api.Reason{}, reasons...)
	slices.SortStableFunc(out, compare)
	return slices.CompactFunc(out, func(x, y api.Reason) bool { return compare(x, y) == 0 })
}

func compare(x, y api.Reason) int {
	return cmp.Or(strings.Compare(x.Issuer, y.Issuer), strings.Compare(x.Code, y.Code), strings.Compare(x.Target, y.Target),
		strings.Compare(x.Kid, y.Kid), strings.Compare(x.Message, y.Message))
}

// alive says whether the main loops are turning.
func (a *Admin) alive() api.Health {
	if err := a.cfg.Alive(); err != nil {
		return api.Health{Status: statusUnavailable, Reasons: []api.Reason{{Code: CodeNotAlive, Message: err.Error()}}}
	}
	return api.Health{Status: statusOK, Reasons: []api.Reason{}}
}

func (a *Admin) livez(w http.ResponseWriter, _ *http.Request) { writeHealth(w, a.alive()) }

func (a *Admin) readyz(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, a.judge(time.Now()).public)
}

func (a *Admin) readyzSigner(w http.ResponseWriter, _ *http.Request) {
	writeHealth(w, a.judge(time.Now()).signer)
}

func writeHealth(w http.ResponseWriter, h api.Health) {
	code := http.StatusOK
	if h.Status == statusUnavailable {
		code = http.StatusServiceUnavailable
	}
	writeJSON(w, code, h)
}
