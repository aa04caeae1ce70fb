package clienttest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// signHandler serves the sign socket.
func (s *Server) signHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sign", s.serveSign)
	mux.HandleFunc("POST /v1/sign/batch", s.serveBatch)
	mux.HandleFunc("GET /v1/jwks", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, "application/jwk-set+json", s.set())
	})
	mux.HandleFunc("GET /v1/profiles", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, "application/json", s.listed())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		api.NewProblem(api.NotFound, "this is a sign socket with POST /v1/sign, POST /v1/sign/batch, GET /v1/jwks and GET /v1/profiles; keys, rotation and status are at the admin socket").WriteTo(w)
	})
	return mux
}

// publicHandler serves what verifiers read.
func (s *Server) publicHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, "application/jwk-set+json", s.set())
	})
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, "application/json", map[string]any{
			"issuer": s.issuer, "jwks_uri": s.JWKSURL(),
			"id_token_signing_alg_values_supported": []string{string(s.alg)},
			"response_types_supported":              []string{"id_token"}, "subject_types_supported": []string{"public"},
		})
	})
	return mux
}

func (s *Server) serveSign(w http.ResponseWriter, r *http.Request) {
	body, prob := read(w, r, api.MaxSignBytes)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	resp, prob := s.answerDocument(body)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	writeJSON(w, "application/json", resp)
}

func (s *Server) serveBatch(w http.ResponseWriter, r *http.Request) {
	body, prob := read(w, r, api.MaxBatchBytes)
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	var req struct {
		Requests *[]json.RawMessage `json:"requests"`
	}
	err := strictjson.Unmarshal(body, &req)
	switch {
	case err != nil:
		prob = invalid("%v", err)
	case req.Requests == nil:
		prob = invalid("requests is missing: an array of what POST /v1/sign takes")
	case len(*req.Requests) > api.MaxBatch:
		prob = api.NewProblem(api.TooLarge, fmt.Sprintf("%d requests in one batch: at most %d", len(*req.Requests), api.MaxBatch))
	}
	if prob != nil {
		prob.WriteTo(w)
		return
	}
	out := api.BatchResponse{Results: []api.BatchResult{}}
	for _, doc := range *req.Requests {
		var one api.BatchResult
		if len(doc) > api.MaxSignBytes {
			one.Error = tooLarge(api.MaxSignBytes)
		} else {
			one.SignResponse, one.Error = s.answerDocument(doc)
		}
		out.Results = append(out.Results, one)
	}
	writeJSON(w, "application/json", out)
}

func (s *Server) answerDocument(doc []byte) (*api.SignResponse, *api.Problem) {
	var req api.SignRequest
	if err := strictjson.Unmarshal(doc, &req); err != nil {
		return nil, invalid("%v", err)
	}
	return s.answer(req)
}

// listed are the profiles as the daemon lists them.
func (s *Server) listed() api.Profiles {
	out := api.Profiles{Profiles: []api.Profile{}}
	for _, p := range s.profiles {
		out.Profiles = append(out.Profiles, p.Profile.Profile)
	}
	if len(out.Profiles) == 0 {
		out.Profiles = append(out.Profiles, anyProfile(s.alg).Profile.Profile)
	}
	for i := range out.Profiles {
		p := &out.Profiles[i]
		for _, list := range []*[]string{&p.Audiences, &p.AllowedClaims, &p.RequiredClaims} {
			if *list == nil {
				*list = []string{}
			}
		}
	}
	return out
}

func read(w http.ResponseWriter, r *http.Request, most int64) ([]byte, *api.Problem) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		return nil, tooLarge(most)
	}
	return body, nil
}

func tooLarge(most int64) *api.Problem {
	return api.NewProblem(api.TooLarge, fmt.Sprintf("the request has more than %d bytes", most))
}

func writeJSON(w http.ResponseWriter, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		api.NewProblem(api.Unavailable, err.Error()).WriteTo(w)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(body, '\n')) // the client has gone: nobody to tell
}
