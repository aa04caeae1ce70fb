package signer

import (
	"encoding/json"
	"errors"
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
)

// Handler serves one sign socket under its configured name. Its server has to
// put the caller into the context with unixsock.ConnContext, as NewServer does:
// without it every request is forbidden.
func (s *Signer) Handler(socket string) http.Handler {
	h := &handler{signer: s, socket: socket}
	mux := http.NewServeMux()
	mux.Handle("/v1/sign", only(http.MethodPost, h.sign))
	mux.Handle("/v1/sign/batch", only(http.MethodPost, h.batch))
	mux.Handle("/v1/jwks", only(http.MethodGet, h.inTurn(h.jwks)))
	mux.Handle("/v1/profiles", only(http.MethodGet, h.inTurn(h.profiles)))
	mux.Handle("/", h.inTurn(func(w http.ResponseWriter, _ *http.Request) {
		api.NewProblem(api.NotFound, "this socket has POST /v1/sign, POST /v1/sign/batch, GET /v1/jwks and GET /v1/profiles").WriteTo(w)
	}))
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

// inTurn is for what needs no profile: else whoever may sign nothing could
// keep the processors from those who may.
func (h *handler) inTurn(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		turn, err := h.signer.turns.Enter(r.Context(), h.caller(r).peer.UID)
		if err != nil {
			busy(err).WriteTo(w)
			return
		}
		defer turn.Leave()
		next(w, r)
	}
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
	var list []entry
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
	if prob := dk.lapsed(); prob != nil {
		// Their records stay, as they do where the daemon dies in this moment.
		h.signer.log.Warn("tokens of a batch were recorded and not released", "socket", h.socket, "code", prob.Code)
		prob.WriteTo(w)
		return
	}
	dk.answer = append(dk.answer, "]}\n"...)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(batchIOTime)) // others wait for the turn
	writeBody(w, dk.answer)
}

// readBatch reads the body in its caller's time, and parses it in his turn: that
// takes a tenth of a second where he means ill.
func (h *handler) readBatch(w http.ResponseWriter, r *http.Request, dk *desk) ([]entry, *api.Problem) {
	// The time that it waited is not the caller's.
	deadlines := http.NewResponseController(w)
	_ = deadlines.SetReadDeadline(time.Now().Add(batchIOTime)) // a server that cannot has set none
	_ = deadlines.SetWriteDeadline(time.Now().Add(writeTime))
	if prob := dk.read(w, r, api.MaxBatchBytes); prob != nil {
		return nil, prob
	}
	work, err := h.signer.turns.Enter(r.Context(), h.caller(r).peer.UID)
	if err != nil {
		return nil, busy(err)
	}
	defer work.Leave()
	return parseBatch(dk.body)
}

// batchIOTime bounds each of the two spans in which a batch in its turn waits
// for its caller: for the body, and for the answer to be read.
const batchIOTime = 3 * time.Second

// chunkSize is how many entries of a batch are recorded together.
const chunkSize = 64

// refuse is the decision on what was not even read.
func (d *desk) refuse(c caller, prob *api.Problem) *decision {
	one := &d.again(1)[0]
	one.began, one.rec, one.prob = time.Now(), c.record(), prob
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

// bodyProblem tells what was wrong with a body that could not be read.
func bodyProblem(err error, most int64) *api.Problem {
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return tooLarge(most)
	case err != nil:
		return invalid("the body ended before its time: it was cut off, or came too slowly")
	}
	return nil
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
