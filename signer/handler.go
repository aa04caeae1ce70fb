package signer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

// Handler serves one sign socket under its configured name. Its server has to
// put the caller into the context with unixsock.ConnContext, as NewServer does:
// without it every request is forbidden.
func (s *Signer) Handler(socket string) http.Handler {
	h := &handler{signer: s, socket: socket}
	mux := http.NewServeMux()
	mux.Handle("/v1/sign", only(http.MethodPost, h.sign))
	mux.Handle("/v1/sign/batch", only(http.MethodPost, h.batch))
	mux.Handle("/v1/jwks", only(http.MethodGet, h.jwks))
	mux.Handle("/v1/profiles", only(http.MethodGet, h.profiles))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		api.NewProblem(api.NotFound, "this socket has POST /v1/sign, POST /v1/sign/batch, GET /v1/jwks and GET /v1/profiles").WriteTo(w)
	})
	return mux
}

type handler struct {
	signer *Signer
	socket string
}

// only refuses other methods with a problem instead of net/http's plain text.
func only(method string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == method {
			next(w, r)
			return
		}
		p := api.NewProblem(api.InvalidRequest, "use "+method+" here")
		p.Status, p.Title = http.StatusMethodNotAllowed, "Method not allowed"
		w.Header().Set("Allow", method)
		p.WriteTo(w)
	})
}

func (h *handler) caller(r *http.Request) caller {
	peer, known := unixsock.PeerFrom(r.Context())
	return caller{socket: h.socket, peer: peer, known: known}
}

func (h *handler) sign(w http.ResponseWriter, r *http.Request) {
	c, ok := h.admit(w, r)
	if !ok {
		return
	}
	body, prob := read(w, r, api.MaxSignBytes)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	resp, prob := h.signer.answer(r.Context(), c, body)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	writeJSON(w, resp)
}

// batch judges each entry alone: one that is refused refuses nothing else. A
// document that is not strict JSON as a whole is refused as a whole.
func (h *handler) batch(w http.ResponseWriter, r *http.Request) {
	c, ok := h.admit(w, r)
	if !ok {
		return
	}
	if prob := h.signer.turn(r.Context()); prob != nil {
		prob.WriteTo(w)
		return
	}
	defer h.signer.leave()
	// The time that it waited is not the caller's.
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetReadDeadline(time.Now().Add(readTime)) // a server that cannot has set none
	_ = deadlines.SetWriteDeadline(time.Now().Add(writeTime))
	list, prob := readBatch(w, r)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	out := api.BatchResponse{Results: make([]api.BatchResult, 0, len(list))}
	for _, one := range list {
		var res api.BatchResult
		switch {
		case r.Context().Err() != nil: // the caller has gone, or the daemon is about to
			res.Error = api.NewProblem(api.Unavailable, "the daemon is stopping; ask again")
		case len(one) > api.MaxSignBytes:
			res.Error = tooLarge(api.MaxSignBytes)
		default:
			res.SignResponse, res.Error = h.signer.answer(r.Context(), c, one)
		}
		out.Results = append(out.Results, res)
	}
	writeJSON(w, out)
}

func readBatch(w http.ResponseWriter, r *http.Request) ([]json.RawMessage, *api.Problem) {
	body, prob := read(w, r, api.MaxBatchBytes)
	if prob != nil {
		return nil, prob
	}
	var req struct {
		Requests *[]json.RawMessage `json:"requests"`
	}
	if err := strictjson.Unmarshal(body, &req); err != nil {
		return nil, invalid("%s", clipDetail(err))
	}
	switch {
	case req.Requests == nil:
		return nil, invalid("requests is missing: an array of what POST /v1/sign takes")
	case len(*req.Requests) > api.MaxBatch:
		return nil, api.NewProblem(api.TooLarge, fmt.Sprintf("%d requests in one batch: at most %d", len(*req.Requests), api.MaxBatch))
	}
	return *req.Requests, nil
}

// read takes the body as it is: no Content-Type is demanded, so that curl -d works.
func read(w http.ResponseWriter, r *http.Request, most int64) ([]byte, *api.Problem) {
	if r.ContentLength > most {
		return nil, tooLarge(most)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, tooLarge(most)
	case err != nil:
		return nil, invalid("the body ended before its time: it was cut off, or came too slowly")
	}
	return body, nil
}

func tooLarge(most int64) *api.Problem {
	return api.NewProblem(api.TooLarge, fmt.Sprintf("the request has more than %d bytes", most))
}

// jwks serves the current set of an issuer. Where there are several, the query
// names one: ?issuer=NAME.
func (h *handler) jwks(w http.ResponseWriter, r *http.Request) {
	st, now := h.signer.state.Load(), time.Now()
	names := slices.Sorted(maps.Keys(st.issuers))
	name := r.URL.Query().Get("issuer")
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	v, ok := st.issuers[name]
	switch {
	case name == "":
		invalid("there are several issuers: add ?issuer= and one of %s", strings.Join(names, ", ")).WriteTo(w)
		return
	case !ok:
		api.NewProblem(api.NotFound, fmt.Sprintf("there is no issuer %q: the issuers are %s", clip(name), strings.Join(names, ", "))).WriteTo(w)
		return
	case v.snap == nil || !v.snap.Servable():
		api.NewProblem(api.Unavailable, "the issuer has no key set yet; /readyz says why").WriteTo(w)
		return
	case !now.Before(v.snap.ServeUntil()):
		api.NewProblem(api.Unavailable, fmt.Sprintf("the key set was good until %s, and no newer one could be read; /readyz says why", stamp(v.snap.ServeUntil()))).WriteTo(w)
		return
	}
	set, err := keyring.Set(v.snap, now, keyring.ViewAll)
	if err != nil {
		h.signer.log.Error("key set not rendered", "issuer", name, "error", err)
		api.NewProblem(api.Unavailable, "the key set could not be made; see the daemon's log").WriteTo(w)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(set.Body) // the client has gone: nobody to tell
}

// profiles lists those that this caller may use through this socket, by name.
func (h *handler) profiles(w http.ResponseWriter, r *http.Request) {
	st, c := h.signer.state.Load(), h.caller(r)
	out := api.Profiles{Profiles: []api.Profile{}}
	for _, name := range slices.Sorted(maps.Keys(st.profiles)) {
		if p := st.profiles[name]; p.allows(c) {
			out.Profiles = append(out.Profiles, p.listed(st.issuers[p.issuer].algorithm(p.Ring)))
		}
	}
	writeJSON(w, out)
}

// algorithm is the one that a ring's tokens have now, "" where nobody knows yet.
func (v *view) algorithm(ring string) string {
	if v == nil || v.snap == nil {
		return ""
	}
	if r := v.rings[ring]; len(r.keys) > 0 {
		return r.keys[0].Alg()
	} else if r.active != nil {
		return string(r.active.JWK.Alg)
	}
	r, _ := v.snap.Config.Ring(ring)
	return string(r.Algorithm)
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // the wire types hold nothing that could fail
		api.NewProblem(api.Unavailable, "the answer could not be encoded").WriteTo(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // tokens are for the caller alone
	_, _ = w.Write(append(body, '\n'))          // the client has gone: nobody to tell
}
