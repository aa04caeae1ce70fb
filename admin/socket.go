package admin

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/audit"
)

// AdminHandler answers on the admin socket. Its server must have
// unixsock.ConnContext, or everybody is refused.
func (a *Admin) AdminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/issuers", a.guard(audit.EventAdmin, func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusOK, a.issuers(time.Now()))
	}))
	mux.HandleFunc("POST /v1/rings/{ring}/rotate", a.guard(audit.EventRotate, a.rotate))
	mux.HandleFunc("POST /v1/keys/{kid}/revoke", a.guard(audit.EventRevoke, a.revoke))
	mux.HandleFunc("POST /v1/rings/{ring}/revoke", a.guard(audit.EventRevoke, a.revoke))
	mux.HandleFunc("POST /v1/revoke", a.guard(audit.EventRevoke, a.revoke))
	mux.HandleFunc("POST /v1/issuers/{issuer}/accept", a.guard(audit.EventAccept, a.acceptManifest))
	mux.HandleFunc("/", a.guard(audit.EventAdmin, notFound))
	return mux
}

func notFound(w http.ResponseWriter, r *http.Request) {
	api.NewProblem(api.NotFound, "the admin socket has no "+clip(r.Method+" "+r.URL.Path)+"; tokens are signed at a sign socket").WriteTo(w)
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
