package signer

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/signer/keys/keystest"
	"github.com/keyturn/keyturn/token"
)

// FuzzRequest holds up, for whatever is sent: exactly one of token and problem;
// a token verifies, says what keyturn says and carries the claims as they came;
// the detail of a problem is bounded.
func FuzzRequest(f *testing.F) {
	for _, tc := range refusals {
		f.Add([]byte(tc.body))
	}
	f.Add([]byte(`{"profile":"p-ES256","subject":"u","audience":["x"],"ttl_seconds":60,"claims":{"a":1.0,"é":[{"b":null}]}}`))
	f.Add([]byte(`{"profile":"p-ES256","subject":"u","claims":{"a\u0000":"\ud83d\ude00"}}`))
	f.Add([]byte(`{"profile":"p-ES256","subject":"u","claims":{"a":[{"b":1,"c":[{"B":2}]},{"B":1e3}]}}`))
	w := refusingWorld(f).start().ready()
	f.Fuzz(func(t *testing.T, body []byte) {
		resp, prob := w.s.answer(context.Background(), alice, body)
		w.rec.mu.Lock()
		w.rec.records = nil
		w.rec.mu.Unlock()
		if (resp == nil) == (prob == nil) {
			t.Fatalf("answer %v, problem %v", resp, prob)
		}
		if prob != nil {
			if len(prob.Detail) > 1000 || prob.Code == api.Unavailable || prob.Code == api.NoActiveKey {
				t.Errorf("problem %v", prob)
			}
			return
		}
		mine := *w
		mine.t = t
		v := mine.verify(resp.Token)
		if v.Claims.Issuer != keystest.URL || v.Claims.ExpiresAt.After(time.Now().Add(time.Hour)) {
			t.Errorf("claims %s", v.Claims.Raw)
		}
		checkFaithful(t, body, v)
	})
}

func checkFaithful(t *testing.T, body []byte, v *token.Verified) {
	t.Helper()
	var req api.SignRequest
	if err := strictjson.Unmarshal(body, &req); err != nil {
		t.Fatalf("a token for a request that is not strict: %v", err)
	}
	if v.Claims.Subject != req.Subject && req.Subject != "" {
		t.Errorf("sub %q, asked for %q", v.Claims.Subject, req.Subject)
	}
	for name, value := range req.Claims {
		if !bytes.Equal(v.Claims.All[name], value) {
			t.Errorf("claim %q is %s, sent as %s", name, v.Claims.All[name], value)
		}
	}
	var objects [][]string // the names of those that have begun
	for part := range strictjson.Parts(v.Claims.Raw) {
		switch part.Kind {
		case strictjson.Begin:
			objects = append(objects, nil)
		case strictjson.End:
			objects = objects[:len(objects)-1]
		case strictjson.Name:
			mine := &objects[len(objects)-1]
			if i := slices.IndexFunc(*mine, func(other string) bool { return strings.EqualFold(part.Text, other) }); i >= 0 {
				t.Errorf("%q and %q in one object of a token", (*mine)[i], part.Text)
			}
			*mine = append(*mine, part.Text)
		case strictjson.Number:
			if _, err := strconv.ParseFloat(part.Text, 64); err != nil {
				t.Errorf("a token with the number %s", part.Text)
			}
		}
	}
	// What a lenient reader makes of it is the same as what keyturn meant.
	var lenient struct {
		Exp json.Number `json:"exp"`
		Sub string      `json:"sub"`
	}
	if err := json.Unmarshal(v.Claims.Raw, &lenient); err != nil || lenient.Sub != v.Claims.Subject || lenient.Exp.String() != string(v.Claims.All["exp"]) {
		t.Errorf("encoding/json reads %+v, %v from %s", lenient, err, v.Claims.Raw)
	}
}
