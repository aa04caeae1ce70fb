package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestErrorsHoldNoToken: an answer that cannot be read may hold a token all the
// same. No error repeats a part of it: errors are kept in logs.
func TestErrorsHoldNoToken(t *testing.T) {
	const secret = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNlY3JldA"
	var parts []string
	for i := 0; i+8 <= len(secret); i += 4 {
		parts = append(parts, secret[i:i+8])
	}
	c := &Client{}
	broken := 0
	check := func(what string, err error) {
		if err == nil {
			return
		}
		broken++
		text := c.failed("sign", err).Error()
		for _, part := range parts {
			if strings.Contains(text, part) {
				t.Fatalf("%s: %s", what, text)
			}
		}
	}
	one := `{"token":"` + secret + `","kid":"k","expires_at":"2026-03-01T12:00:00Z","expires_in":300}`
	for _, good := range []string{one, `{"token":5,"kid":"k","x":"` + secret + `"}`, `{"token":{"` + secret + `":1},"kid":2}`, `["` + secret + `"]`, `{"token":"x","expires_in":"` + secret + `","expires_at":1}`, `{"token":"x","expires_at":"` + secret + `"}`, `"` + secret + `"`} {
		for i := range len(good) {
			var docs []string
			docs = append(docs, good[:i], good[:i]+good[i+1:])
			for _, b := range "\"\\{}[],:0x\x00\x80\u202e" {
				docs = append(docs, good[:i]+string(b)+good[i:], good[:i]+string(b)+good[i+1:])
			}
			for _, doc := range append(docs, good+good[i:]) {
				check(doc, readToken([]byte(doc), new(api.SignResponse)))
				_, err := readResults([]byte(`{"results":[`+doc+`]}`), 1)
				check(doc, err)
				check(doc, problem(400, "", []byte(doc)))
			}
		}
	}
	if broken < 1000 {
		t.Errorf("only %d answers could not be read", broken)
	}
}

// TestSourceKeepsItsRequest: what a program does with its request afterwards is
// its own affair; the source reads it from another goroutine.
func TestSourceKeepsItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{ttl: time.Minute}
		ttl := int64(60)
		req := api.SignRequest{Profile: "p", Audience: api.Audience{"a"}, TTLSeconds: &ttl, Claims: map[string]json.RawMessage{"x": []byte(`"1"`)}}
		s := b.client(t).Source(req)
		want := sent(t, &s.req)
		req.Audience[0], *req.TTLSeconds, req.Claims["x"][1], req.Claims["y"] = "b", 1, '2', []byte("3")
		if got := sent(t, &s.req); got != want {
			t.Errorf("it would send %s, want %s", got, want)
		}
		done := make(chan error)
		go func() {
			_, err := s.Token(t.Context())
			done <- err
		}()
		for i := range 100 {
			req.Audience[0], req.Claims[fmt.Sprint(i)] = fmt.Sprint(i), nil
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func sent(t *testing.T, req *api.SignRequest) string {
	t.Helper()
	var buf bytes.Buffer
	if err := encodeRequest(&buf, req); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}
