package signer

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/profile"
	"github.com/keyturn/keyturn/signer/request"
	"github.com/keyturn/keyturn/signer/socket"
)

// Handler serves one sign socket under its configured name. Its server has to
// put the caller into the context with unixsock.ConnContext, as socket.NewServer does:
// without it every request is forbidden.
func (s *Signer) Handler(socket string) http.Handler {
	h := &handler{signer: s, socket: socket}
	mux := exactMux{paths: map[string]http.Handler{}, other: h.inTurn(func(w http.ResponseWriter, _ *http.Request) {
		api.NewProblem(api.NotFound, "this is a sign socket with POST /v1/sign, POST /v1/sign/batch, GET /v1/jwks and GET /v1/profiles; keys, rotation and status are at the admin socket").WriteTo(w)
	})}
	mux.Handle("/v1/sign", only(http.MethodPost, h.sign))
	mux.Handle("/v1/sign/batch", only(http.MethodPost, h.batch))
	mux.Handle("/v1/jwks", only(http.MethodGet, h.inTurn(h.jwks)))
	mux.Handle("/v1/profiles", only(http.MethodGet, h.inTurn(h.profiles)))
	return &mux
}

// exactMux takes each path as it is: one that would have to be cleaned first
// (//v1/sign) or decoded (/v1/%73ign) is another one. http.ServeMux would redirect.
type exactMux struct {
	paths map[string]http.Handler
	other http.Handler
}

// Handle is called before the first request.
func (m *exactMux) Handle(path string, h http.Handler) { m.paths[path] = h }

func (m *exactMux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h := m.paths[r.URL.Path]; h != nil && r.URL.RawPath == "" {
		h.ServeHTTP(w, r)
		return
	}
	m.other.ServeHTTP(w, r)
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

// inTurn is for what needs no profile: else whoever may sign nothing could
// keep the processors from those who may.
func (h *handler) inTurn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		turn, err := h.signer.turns.Enter(r.Context(), h.caller(r).Peer.UID)
		if err != nil {
			busy(err).WriteTo(w)
			return
		}
		defer turn.Leave()
		next(w, r)
	}
}

func (h *handler) caller(r *http.Request) profile.Caller {
	peer, known := unixsock.PeerFrom(r.Context())
	return profile.Caller{Socket: h.socket, Peer: peer, Known: known}
}

func (h *handler) sign(w http.ResponseWriter, r *http.Request) {
	c, ok := h.admit(w, r)
	if !ok {
		return
	}
	dk := newDesk()
	defer dk.clear()
	var d *decision
	if prob := dk.read(w, r, api.MaxSignBytes); prob != nil {
		d = dk.refuse(c, prob)
	} else {
		d = h.signer.judgeOne(r.Context(), c, dk)
	}
	if h.signer.commit(r.Context(), dk); d.prob != nil {
		d.prob.WriteTo(w)
		return
	}
	dk.answer = append(d.appendTo(dk.answer), '\n')
	writeBody(w, dk.answer)
}

// batch judges each entry alone: one that is refused refuses nothing else. A
// document that is not strict JSON as a whole is refused as a whole.
func (h *handler) batch(w http.ResponseWriter, r *http.Request) {
	c, ok := h.admit(w, r)
	if !ok {
		return
	}
	dk := newDesk()
	defer dk.clear()
	var list []request.Entry
	turn, prob := h.signer.batchTurn(r.Context(), c)
	if prob == nil {
		defer turn.Leave()
		list, prob = h.readBatch(w, r, dk)
	}
	if prob != nil {
		d := dk.refuse(c, prob)
		h.signer.commit(r.Context(), dk)
		d.prob.WriteTo(w)
		return
	}
	dk.answer = append(dk.answer, `{"results":[`...)
	for chunk := range slices.Chunk(list, chunkSize) {
		decisions := h.signer.judgeSome(r.Context(), c, chunk, dk)
		h.signer.commit(r.Context(), dk)
		for i := range decisions {
			dk.appendResult(&decisions[i])
		}
	}
	if prob := dk.lapsed(h.signer.keys.At(time.Now())); prob != nil {
		h.signer.log.Warn("tokens of a batch were recorded and not released", "socket", h.socket, "tokens", len(dk.released), "code", prob.Code)
		h.signer.withhold(r.Context(), dk, prob).WriteTo(w)
		return
	}
	dk.answer = append(dk.answer, "]}\n"...)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(batchIOTime)) // others wait for the turn
	writeBody(w, dk.answer)
}

// readBatch reads the body in its caller's time, and parses it in his turn: that
// takes a tenth of a second where he means ill.
func (h *handler) readBatch(w http.ResponseWriter, r *http.Request, dk *desk) ([]request.Entry, *api.Problem) {
	// The time that it waited is not the caller's.
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetReadDeadline(time.Now().Add(batchIOTime)) // a server that cannot has set none
	_ = deadlines.SetWriteDeadline(time.Now().Add(socket.WriteTime))
	if prob := dk.read(w, r, api.MaxBatchBytes); prob != nil {
		return nil, prob
	}
	work, err := h.signer.turns.Enter(r.Context(), h.caller(r).Peer.UID)
	if err != nil {
		return nil, busy(err)
	}
	defer work.Leave()
	return request.ParseBatch(dk.body)
}

// batchIOTime bounds each of the two spans in which a batch in its turn waits
// for its caller: for the body, and for the answer to be read.
const batchIOTime = 3 * time.Second

// chunkSize is how many entries of a batch are recorded together.
const chunkSize = 64

// refuse is the decision on what was not even read.
func (d *desk) refuse(c profile.Caller, prob *api.Problem) *decision {
	one := &d.again(1)[0]
	one.began, one.rec, one.prob = time.Now(), newRecord(c), prob
	return one
}

// appendResult writes an api.BatchResult.
func (d *desk) appendResult(one *decision) {
	if d.answer[len(d.answer)-1] != '[' {
		d.answer = append(d.answer, ',')
	}
	if one.prob == nil {
		d.note(one)
		d.answer = one.appendTo(d.answer)
		return
	}
	doc, _ := json.Marshal(api.BatchResult{Error: one.prob}) // it holds nothing that could fail
	d.answer = append(d.answer, doc...)
}

// jwks serves the current set of an issuer. Where there are several, the query
// names one: ?issuer=NAME.
func (h *handler) jwks(w http.ResponseWriter, r *http.Request) {
	views, now := h.signer.keys.Views(), time.Now()
	names := slices.Sorted(maps.Keys(views))
	name := r.URL.Query().Get("issuer")
	if name == "" && len(names) == 1 {
		name = names[0]
	}
	v, ok := views[name]
	switch {
	case name == "":
		request.Invalid("there are several issuers: add ?issuer= and one of %s (keyturn jwks ISSUER)", strings.Join(names, ", ")).WriteTo(w)
		return
	case !ok:
		api.NewProblem(api.NotFound, fmt.Sprintf("there is no issuer %q: the issuers are %s", request.Clip(name), strings.Join(names, ", "))).WriteTo(w)
		return
	case v.Snapshot == nil || !v.Snapshot.Servable():
		api.NewProblem(api.Unavailable, "the issuer has no key set yet; /readyz says why").WriteTo(w)
		return
	case !now.Before(v.Snapshot.ServeUntil()):
		api.NewProblem(api.Unavailable, fmt.Sprintf("the key set was good until %s, and no newer one could be read; /readyz says why", v.Snapshot.ServeUntil().UTC().Format(time.RFC3339))).WriteTo(w)
		return
	}
	set, err := keyring.Set(v.Snapshot, now, keyring.ViewAll)
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
	views, c := h.signer.keys.Views(), h.caller(r)
	set := *h.signer.profiles.Load()
	out := api.Profiles{Profiles: []api.Profile{}}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if p := set[name]; p.Allows(c) {
			out.Profiles = append(out.Profiles, p.Listed(views[p.Issuer].Algorithm(p.Ring)))
		}
	}
	writeJSON(w, out)
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // the wire types hold nothing that could fail
		api.NewProblem(api.Unavailable, "the answer could not be encoded").WriteTo(w)
		return
	}
	writeBody(w, append(body, '\n'))
}

func writeBody(w http.ResponseWriter, body []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Cache-Control"] = noStore // tokens are for the caller alone
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	_, _ = w.Write(body) // the client has gone: nobody to tell
}

// Header values that never change.
var (
	typeJSON = []string{"application/json"}
	noStore  = []string{"no-store"}
)
