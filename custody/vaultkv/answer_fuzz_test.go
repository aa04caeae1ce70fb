package vaultkv_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultkv"
	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/keyring"
)

// FuzzAnswers: what stands at Vault's address may answer anything. Nothing that
// is not a manifest is taken for one, or for there being none; no half is taken
// that does not match.
func FuzzAnswers(f *testing.F) {
	sample := custodytest.Sample("main", 1)
	doc, err := keyring.Encode(sample)
	if err != nil {
		f.Fatal(err)
	}
	private, err := half.Generate(nil, keyring.ES256, 0)
	if err != nil {
		f.Fatal(err)
	}
	key := keyring.Key{JWK: private.JWK(), Handle: private.JWK().Kid}
	quoted := strings.ReplaceAll(string(doc), `"`, `\"`)
	f.Add(200, []byte(`{"data":{"data":{"manifest":"`+quoted+`"},"metadata":{"version":3}}}`))
	f.Add(200, []byte(`{"data":{"data":{"private_key":"-----BEGIN PRIVATE KEY-----\n"},"metadata":{"version":1}}}`))
	f.Add(200, []byte(`{"data":{"keys":["a/","b",""]}}`))
	f.Add(200, []byte(`{"data":{"type":"kv","path":"kt/","options":{"version":"2"},"cas_required":true,"max_versions":3}}`))
	f.Add(200, []byte(`{"data":{"current_version":-1,"versions":{"9223372036854775807":{}}}}`))
	f.Add(404, []byte(`{"errors":[]}`))
	f.Add(404, []byte(`{"data":{"data":null,"metadata":{"version":2}}}`))
	var status int
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/token/") {
			_, _ = w.Write([]byte(`{"data":{"ttl":0}}`))
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}))
	f.Cleanup(server.Close)
	session, err := vaultsession.New(vaultsession.Config{Address: server.URL, Auth: vaultsession.Auth{Method: vaultsession.MethodToken, Token: func() string { return "t" }}})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- session.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-ended })
	c := vaultkv.New(vaultkv.Config{Session: session, Mount: "kt"})
	f.Fuzz(func(t *testing.T, code int, answer []byte) {
		if code < 200 || code > 599 || code == 204 || code == 429 || code == 503 || code >= 300 && code < 400 {
			return // no answer that HTTP could bring, one to follow, or one that asks for patience
		}
		status, body = code, answer
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		switch s, version, err := c.Load(ctx, "main"); {
		case err == nil && (s == nil || s.Config.Name != "main" || version < 1):
			t.Fatalf("Load = %v, version %d", s, version)
		case errors.Is(err, keyring.ErrNoManifest) && (status != http.StatusNotFound || version != 0):
			t.Fatalf("%d %s was taken for there being no manifest", status, body)
		}
		if kids, err := c.List(ctx, "main"); err == nil {
			for _, kid := range kids {
				if strings.HasSuffix(kid, "/") {
					t.Errorf("the folder %q was taken for a half", kid)
				}
			}
		}
		if k, err := c.Signer(ctx, "main", key); err == nil {
			t.Errorf("%s was taken for the half of a key: %v", body, k.Public())
		}
		_ = c.Check(ctx) // it answers
	})
}
