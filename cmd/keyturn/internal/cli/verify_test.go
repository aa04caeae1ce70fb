package cli

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/token"
)

// signed makes a key set and a token of it that is good for an hour.
func signed(t *testing.T) (set []byte, raw string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := keyring.NewJWK(key.Public(), keyring.ES256)
	if err != nil {
		t.Fatal(err)
	}
	if set, err = json.Marshal(keyring.JWKSet{Keys: []keyring.JWK{jwk}}); err != nil {
		t.Fatal(err)
	}
	s, err := token.NewSigner("ES256", jwk.Kid, key)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Unix()
	raw, err = s.Sign("JWT", fmt.Appendf(nil, `{"iss":"https://i","aud":["a","b"],"sub":"me","iat":%d,"nbf":%d,"exp":%d}`, at-10, at-10, at+3600))
	if err != nil {
		t.Fatal(err)
	}
	return set, raw
}

// run executes one command line with an environment and standard input of its own.
func run(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = Execute(context.Background(), Config{Args: args, Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs})
	return code, out.String(), errs.String()
}

func TestVerify(t *testing.T) {
	set, raw := signed(t)
	_, foreign := signed(t)
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/jwks.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
	mux.Handle("/moved", http.RedirectHandler("/jwks.json", http.StatusFound))
	mux.HandleFunc("/later", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/html", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte(" "), token.MaxSetBytes+1))
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	url := server.URL

	for name, tc := range map[string]struct {
		stdin string
		args  []string
		code  int
		want  string // in stderr
	}{
		"file":           {"", []string{"--jwks", file, raw}, 0, "valid: signed with "},
		"URL":            {"", []string{"--jwks", url + "/jwks.json", "--issuer", "https://i", "--audience", "b", raw}, 0, "(ES256), expires in "},
		"standard input": {raw + "\n", []string{"--jwks", file, "-"}, 0, "valid"},
		"issuer":         {"", []string{"--jwks", file, "--issuer", "https://other", raw}, 1, "wrong issuer"},
		"audience":       {"", []string{"--jwks", file, "--audience", "c", raw}, 1, "wrong audience"},
		"foreign key":    {"", []string{"--jwks", file, foreign}, 1, "unknown kid"},
		"changed":        {"", []string{"--jwks", file, raw[:len(raw)-8] + "AAAAAAAA"}, 1, "signature does not match"},
		"no token":       {"", []string{"--jwks", file, "x"}, 1, "malformed token"},
		"redirect":       {"", []string{"--jwks", url + "/moved", raw}, 1, "302 Found: a key set is 200, without redirects"},
		"503":            {"", []string{"--jwks", url + "/later", raw}, 2, "503 Service Unavailable: retry"},
		"404":            {"", []string{"--jwks", url + "/none", raw}, 1, "404 Not Found"},
		"no set":         {"", []string{"--jwks", url + "/html", raw}, 1, "bad key set"},
		"endless":        {"", []string{"--jwks", url + "/large", raw}, 1, "is longer than"},
		"endless input":  {strings.Repeat("x", token.MaxBytes+1), []string{"--jwks", file, "-"}, 1, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(tc.stdin, append([]string{"verify"}, tc.args...)...)
			if code != tc.code || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit code %d, %q, want %d, %q", code, stderr, tc.code, tc.want)
			}
			if (stdout != "") != (tc.code == 0) {
				t.Errorf("standard output %q with exit code %d", stdout, code)
			}
			if tc.code == 0 && !strings.Contains(stdout, `"sub": "me"`) {
				t.Errorf("claims %q", stdout)
			}
		})
	}
}
