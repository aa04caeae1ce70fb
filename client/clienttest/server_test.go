package clienttest_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/client"
	"github.com/keyturn/keyturn/client/clienttest"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func fetch(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%s: %d %v", url, resp.StatusCode, err)
	}
	return doc
}

func verify(t *testing.T, kt *clienttest.Server, raw string) (*token.Verified, error) {
	t.Helper()
	keys, err := token.ParseSet(fetch(t, kt.JWKSURL()))
	if err != nil {
		t.Fatal(err)
	}
	return token.Verify(keys, raw, token.Options{Now: time.Now(), Issuer: kt.Issuer()})
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range keyring.Algorithms() {
		kt := clienttest.New(t, clienttest.Config{Algorithm: alg, Issuer: "https://tokens.example.com"})
		resp, err := kt.Client().Sign(t.Context(), api.SignRequest{Profile: "p", Subject: "s", Audience: api.Audience{"a"}, Claims: map[string]json.RawMessage{"n": json.RawMessage("1.50")}})
		if err != nil {
			t.Fatal(err)
		}
		v, err := verify(t, kt, resp.Token)
		if err != nil || v.Header != (token.Header{Alg: string(alg), Kid: kt.Kid(), Typ: "JWT"}) {
			t.Errorf("%s: %+v %v", alg, v, err)
			continue
		}
		c := v.Claims
		if c.Subject != "s" || !slices.Equal(c.Audience, []string{"a"}) || string(c.All["n"]) != "1.50" || c.ID == "" || !c.ExpiresAt.Equal(resp.ExpiresAt) || resp.ExpiresIn != 300 || !c.IssuedAt.Equal(c.NotBefore) || !c.IssuedAt.Before(time.Now()) {
			t.Errorf("%s: %s", alg, c.Raw)
		}
		var doc struct {
			Issuer string `json:"issuer"`
			JWKS   string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(fetch(t, kt.URL()+"/.well-known/openid-configuration"), &doc); err != nil || doc.Issuer != "https://tokens.example.com" || doc.JWKS != kt.JWKSURL() {
			t.Errorf("discovery %+v %v", doc, err)
		}
	}
}

func TestKnobs(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{})
	req := api.SignRequest{Profile: "p"}
	first, kid := kt.Token(req), kt.Kid()
	if next := kt.Rotate(); next == kid || next != kt.Kid() {
		t.Errorf("rotated from %s to %s", kid, next)
	}
	second := kt.Token(req)
	for _, raw := range []string{first, second} {
		if _, err := verify(t, kt, raw); err != nil {
			t.Errorf("after a rotation: %v", err)
		}
	}
	kt.Revoke(kt.Kid())
	if _, err := verify(t, kt, second); !errors.Is(err, token.ErrUnknownKey) {
		t.Errorf("after the revocation: %v", err)
	}
	if _, err := verify(t, kt, kt.Token(req)); err != nil {
		t.Errorf("the successor: %v", err)
	}
	kt.Shift(-time.Hour)
	if _, err := verify(t, kt, kt.Token(req)); !errors.Is(err, token.ErrExpired) {
		t.Errorf("an hour ago: %v", err)
	}
	kt.Shift(0)
	kt.Fail(api.NoActiveKey)
	c, err := client.New(client.Config{Socket: kt.Socket(), Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var p *api.Problem
	if _, err := c.Sign(t.Context(), req); !errors.As(err, &p) || p.Code != api.NoActiveKey || p.RetryAfter == 0 {
		t.Errorf("failing: %v", err)
	}
	kt.Fail("")
	kt.Down()
	kt.Down()
	if _, err := c.Sign(t.Context(), req); err == nil || !client.Retryable(err) {
		t.Errorf("down: %v", err)
	}
	kt.Up()
	kt.Up()
	if _, err := c.Sign(t.Context(), req); err != nil {
		t.Errorf("up: %v", err)
	}
	if n := len(kt.Requests()); n != 6 {
		t.Errorf("%d requests came", n)
	}
}

// With a long name of the test, its folder has no room for a socket.
func TestALongNameOfATestWhoseFolderThenHasAPathThatIsTooLongForASocketOfAnyKindAtAll(t *testing.T) {
	kt := clienttest.New(t, clienttest.Config{})
	if _, err := kt.Client().Sign(t.Context(), api.SignRequest{Profile: "p"}); err != nil || len(kt.Socket()) > 107 {
		t.Errorf("%s: %v", kt.Socket(), err)
	}
}

// A profile as production lists it is one here.
func TestProfileFromJSON(t *testing.T) {
	var p clienttest.Profile
	doc := `{"name":"orders","issuer":"main","ring":"web","algorithm":"RS256","typ":"at+jwt","subject":{"pattern":"user-[0-9]+"},
	 "audiences":["api://orders"],"allowed_claims":["tenant","client_id"],"required_claims":["tenant"],"default_ttl_seconds":60,"max_ttl_seconds":120}`
	if err := json.Unmarshal([]byte(doc), &p.Profile); err != nil {
		t.Fatal(err)
	}
	p.Add = map[string]any{"env": "test"}
	kt := clienttest.New(t, clienttest.Config{Profiles: []clienttest.Profile{p}})
	resp, err := kt.Client().Sign(t.Context(), api.SignRequest{Profile: "orders", Subject: "user-7", Claims: map[string]json.RawMessage{"tenant": json.RawMessage(`"acme"`)}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify(t, kt, resp.Token)
	if err != nil || v.Header.Typ != "at+jwt" || resp.ExpiresIn != 60 || string(v.Claims.All["env"]) != `"test"` || v.Claims.Audience[0] != "api://orders" {
		t.Errorf("%+v %v", v, err)
	}
	list, err := kt.Client().Profiles(t.Context())
	if err != nil || len(list) != 1 || list[0].MaxTTLSeconds != 120 || list[0].Algorithm != "ES256" {
		t.Errorf("%+v %v", list, err)
	}
	for _, id := range []string{`7`, `""`, `null`} {
		claims := map[string]json.RawMessage{"tenant": json.RawMessage(`"acme"`), "client_id": json.RawMessage(id)}
		if _, err := kt.Client().Sign(t.Context(), api.SignRequest{Profile: "orders", Subject: "user-7", Claims: claims}); err == nil || !strings.Contains(err.Error(), "client_id") {
			t.Errorf("client_id %s: %v", id, err)
		}
	}
	if _, err := kt.Client().Sign(t.Context(), api.SignRequest{Profile: "orders", Subject: "user-7 "}); err == nil || !strings.Contains(err.Error(), "pattern") {
		t.Errorf("%v", err)
	}
}
