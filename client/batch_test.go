package client_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
)

func TestBatch(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{Profiles: []clienttest.Profile{{Profile: api.Profile{Name: "p", AllowedClaims: []string{"*"}}}}})
	const n = 2*api.MaxBatch + 7
	reqs := make([]api.SignRequest, n)
	for i := range reqs {
		reqs[i] = api.SignRequest{Profile: "p", Subject: fmt.Sprint("u", i), Audience: api.Audience{"a"}}
	}
	reqs[3].Profile = "none"
	reqs[1500].Claims = map[string]json.RawMessage{"x": json.RawMessage(`"` + strings.Repeat("x", api.MaxSignBytes) + `"`)}
	reqs[1501].Subject = "\xff"
	results, err := kt.Client().SignBatch(t.Context(), reqs)
	if err != nil || len(results) != n {
		t.Fatalf("%d results, %v", len(results), err)
	}
	want := map[int]api.Code{3: api.Forbidden, 1500: api.TooLarge, 1501: api.InvalidRequest}
	for i, r := range results {
		var p *api.Problem
		switch {
		case want[i] != "" && (!errors.As(r.Err, &p) || p.Code != want[i] || r.Token != ""):
			t.Errorf("%d: %v, want %s", i, r.Err, want[i])
		case want[i] == "" && (r.Err != nil || subject(t, r.Token) != reqs[i].Subject):
			t.Errorf("%d: %v, subject %q", i, r.Err, subject(t, r.Token))
		}
	}
	if got, err := kt.Client().SignBatch(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("nothing: %v %v", got, err)
	}
	kt.Down()
	results, err = kt.Client().SignBatch(short(t, 100*time.Millisecond), reqs[:5])
	if err == nil || len(results) != 5 || !errors.Is(results[0].Err, err) || !client.Retryable(results[4].Err) {
		t.Errorf("down: %v %v", results, err)
	}
}

// A daemon refuses strangers without reading what they ask, and hangs up: they
// hear why all the same.
func TestRefusedBeforeItIsRead(t *testing.T) {
	path := socketPath(t)
	serve(t, path, func(w http.ResponseWriter, _ *http.Request) { api.NewProblem(api.Forbidden, "").WriteTo(w) })
	reqs := make([]api.SignRequest, 60)
	for i := range reqs {
		reqs[i].Claims = map[string]json.RawMessage{"x": json.RawMessage(`"` + strings.Repeat("x", 50<<10) + `"`)}
	}
	results, err := newClient(t, path).SignBatch(t.Context(), reqs)
	var p *api.Problem
	if !errors.As(err, &p) || p.Code != api.Forbidden || len(results) != len(reqs) || !errors.Is(results[59].Err, err) {
		t.Errorf("%v", err)
	}
}

// Entries that have to wait are asked for again, and they alone.
func TestBatchRepeats(t *testing.T) {
	path := socketPath(t)
	var sizes []int
	serve(t, path, func(w http.ResponseWriter, r *http.Request) {
		var req api.BatchRequest
		if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
			t.Error(err)
		}
		sizes = append(sizes, len(req.Requests))
		var out api.BatchResponse
		for i := range req.Requests {
			if len(sizes) == 1 && i%2 == 1 {
				out.Results = append(out.Results, api.BatchResult{Error: api.NewProblem(api.RateLimited, "slowly")})
				continue
			}
			out.Results = append(out.Results, api.BatchResult{SignResponse: &api.SignResponse{Token: fmt.Sprint("t", len(sizes)), Kid: "k", ExpiresAt: fixedTime, ExpiresIn: 1}})
		}
		_ = json.NewEncoder(w).Encode(out)
	})
	results, err := newClient(t, path).SignBatch(t.Context(), make([]api.SignRequest, 4))
	var got []string
	for _, r := range results {
		got = append(got, r.Token)
	}
	if fmt.Sprint(got, sizes, err) != "[t1 t2 t1 t2] [4 2] <nil>" {
		t.Errorf("%v %v %v", got, sizes, err)
	}
}

func TestProfilesAndKeySet(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{Profiles: []clienttest.Profile{{Profile: api.Profile{Name: "orders", Audiences: []string{"api"}}}}})
	list, err := kt.Client().Profiles(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "orders" || list[0].Algorithm != "ES256" {
		t.Errorf("profiles %+v %v", list, err)
	}
	set, err := kt.Client().JWKS(t.Context(), "main & more")
	if err != nil || !strings.Contains(string(set), kt.Kid()) {
		t.Errorf("key set %s %v", set, err)
	}
}
