package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
)

// FuzzOrder: whatever is posted as an order is read strictly or refused in
// bounded words, and an order that encoding/json reads otherwise than we do is
// refused.
func FuzzOrder(f *testing.F) {
	f.Add([]byte(`{"to":"k","force":true,"dry_run":false,"reason":"r"}`))
	f.Add([]byte(`{"kids":["a","b"],"reason":"r","sign_now":true}`))
	f.Add([]byte(`{"force":false,"Force":true}`))
	f.Add([]byte(`{"force":false,"force":true}`))
	f.Add([]byte(`{"reason":"` + strings.Repeat("x", maxBody) + `"}`))
	f.Add([]byte(``))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		readsAs[api.RotateRequest](t, body)
		readsAs[api.RevokeRequest](t, body)
		readsAs[api.AcceptRequest](t, body)
	})
}

// readsAs reads an order of one kind, as the socket does and leniently.
func readsAs[T any](t *testing.T, body []byte) {
	t.Helper()
	var ours, lenient T
	prob := readOrder(httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), "POST", "/", io.NopCloser(strings.NewReader(string(body)))), &ours)
	switch {
	case prob != nil:
		if prob.Code != api.InvalidRequest && prob.Code != api.TooLarge || len(prob.Detail) > maxBody+1000 {
			t.Errorf("refused with %v", prob)
		}
		return
	case len(body) == 0:
		return
	case len(body) > maxBody:
		t.Fatalf("%d bytes were taken", len(body))
	}
	if err := strictjson.Check(body); err != nil {
		t.Fatalf("taken, and not strict: %v", err)
	}
	a, errA := json.Marshal(ours)
	errL := json.Unmarshal(body, &lenient)
	b, errB := json.Marshal(lenient)
	if errA != nil || errL != nil || errB != nil || string(a) != string(b) {
		t.Errorf("read as %s, leniently as %s (%v, %v, %v)", a, b, errA, errL, errB)
	}
}
