package client_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/keyturn/keyturn/client/clienttest"
	"github.com/keyturn/keyturn/token"
)

// subject is the sub of a token, "" where it cannot be read.
func subject(t *testing.T, raw string) string {
	t.Helper()
	parsed, err := token.Parse(raw)
	if err != nil {
		return ""
	}
	return parsed.Claims.Subject
}

// verify checks a token by the set that a fake serves.
func verify(t *testing.T, kt *clienttest.Server, raw string) (*token.Verified, error) {
	t.Helper()
	resp, err := http.Get(kt.JWKSURL())
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer resp.Body.Close()
	doc, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.ParseSet(doc)
	if err != nil {
		t.Fatal(err)
	}
	return token.Verify(keys, raw, token.Options{Now: time.Now(), Issuer: kt.Issuer()})
}
