package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// secrets are the private halves that were ever seen in Vault at
// MOUNT/data/issuers/ISSUER/keys/KID, to be searched for where none may be.
type secrets struct {
	*vaultSite
	issuer string
	halves map[string]crypto.Signer
	texts  map[string]string
}

func newSecrets(s *vaultSite, issuer string) *secrets {
	return &secrets{s, issuer, map[string]crypto.Signer{}, map[string]string{}}
}

func (s *secrets) path(kind, kid string) string {
	return s.mount + "/" + kind + "/issuers/" + s.issuer + "/keys/" + kid
}

// kids are those of the halves that are in Vault now.
func (s *secrets) kids() []string {
	s.t.Helper()
	status, body := s.get("LIST", strings.TrimSuffix(s.path("metadata", ""), "/"))
	var reply struct {
		Data struct{ Keys []string }
	}
	if status == http.StatusOK {
		must(s.t, json.Unmarshal(body, &reply))
	}
	return reply.Data.Keys
}

// collect reads the halves that are new. Each must be what field private_key
// of its place should be: PKCS#8 in PEM, and its kid the thumbprint (RFC 7638)
// of its public half.
func (s *secrets) collect() {
	s.t.Helper()
	for _, kid := range s.kids() {
		if s.halves[kid] != nil {
			continue
		}
		status, body := s.get("GET", s.path("data", kid))
		if status == http.StatusNotFound {
			continue // destroyed since it was listed
		}
		var reply struct {
			Data struct {
				Data map[string]string
			}
		}
		must(s.t, json.Unmarshal(body, &reply))
		if len(reply.Data.Data) != 1 {
			s.t.Errorf("%d fields beside kid %s, want private_key alone", len(reply.Data.Data), kid)
		}
		text := reply.Data.Data["private_key"]
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "PRIVATE KEY" || len(bytes.TrimSpace(rest)) > 0 {
			s.t.Fatalf("private_key of kid %s is no PEM of PKCS#8", kid)
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		must(s.t, err)
		s.halves[kid], s.texts[kid] = key.(crypto.Signer), text
		public := jose.JSONWebKey{Key: s.halves[kid].Public()}
		thumb, err := public.Thumbprint(crypto.SHA256)
		must(s.t, err)
		if got := base64.RawURLEncoding.EncodeToString(thumb); got != kid {
			s.t.Errorf("the half at kid %s has the thumbprint %s", kid, got)
		}
	}
}

// matches compares a published set with the halves: every kid in want is in
// it, with the public half of the private one.
func (s *secrets) matches(set jose.JSONWebKeySet, want ...string) {
	s.t.Helper()
	for _, kid := range want {
		keys := set.Key(kid)
		if len(keys) != 1 {
			s.t.Errorf("%d keys of kid %s in the set", len(keys), kid)
			continue
		}
		half := s.halves[kid]
		if half == nil {
			s.t.Errorf("kid %s is published and has no private half in Vault", kid)
			continue
		}
		if public, ok := half.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(keys[0].Key) {
			s.t.Errorf("the published key %s is not the public half of what is in Vault", kid)
		}
	}
}

// isGone reports whether root reads 404 everywhere, and nothing in the answer.
func (s *secrets) isGone(kid string) bool {
	s.t.Helper()
	for _, path := range []string{s.path("data", kid), s.path("data", kid) + "?version=1", s.path("metadata", kid)} {
		if status, body := s.get("GET", path); status != http.StatusNotFound || strings.TrimSpace(string(body)) != `{"errors":[]}` {
			return false
		}
	}
	return true
}

// end waits until root reads nothing of a half.
func (s *secrets) end(limit time.Duration, kid string) {
	s.t.Helper()
	within(s.t, limit, "end of the private half of "+kid, func() error {
		if !s.isGone(kid) {
			return errors.New("root still reads something of it")
		}
		return nil
	})
}

// needles are what would give a private half away: its secret numbers, and
// windows of them in the encodings in which key files, logs and JSON show them.
func needles(t *testing.T, key crypto.Signer) [][]byte {
	t.Helper()
	var secret [][]byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		must(t, err)
		secret = append(secret, d)
	case ed25519.PrivateKey:
		secret = append(secret, k.Seed())
	case *rsa.PrivateKey:
		secret = append(secret, k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes())
	default:
		t.Fatalf("a private half of type %T", key)
	}
	var out [][]byte
	for _, d := range secret {
		out = append(out, []byte(new(big.Int).SetBytes(d).String()))
		// Wherever the number lies in a longer encoding, and wherever its lines
		// are broken, one window of 12 bytes stands there whole.
		for i := range min(len(d), 48) - 12 + 1 {
			out = append(out, encodings(d[i:i+12])...)
		}
	}
	return out
}

// encodings of a text whose length is a multiple of three.
func encodings(text []byte) [][]byte {
	return [][]byte{
		text, []byte(hex.EncodeToString(text)), []byte(strings.ToUpper(hex.EncodeToString(text))),
		[]byte(base64.StdEncoding.EncodeToString(text)), []byte(base64.URLEncoding.EncodeToString(text)),
	}
}

// search finds private halves in documents, also in an encoding of an encoding
// (a PEM as bytes in JSON, say, or as Go's %v prints bytes). It maps the first
// twelve bytes of each needle to the needles that begin so.
type search map[[12]byte][]found

type found struct {
	needle []byte
	kid    string
}

func newSearch(t *testing.T, halves map[string]crypto.Signer) search {
	t.Helper()
	s := search{}
	for kid, key := range halves {
		add := func(n []byte) { s[[12]byte(n)] = append(s[[12]byte(n)], found{n, kid}) }
		for _, n := range needles(t, key) {
			add(n)
			for i := range len(n) - 12 + 1 {
				for _, again := range append(encodings(n[i:i+12]), []byte(strings.Trim(fmt.Sprint(n[i:i+12]), "[]"))) {
					add(again)
				}
			}
		}
	}
	return s
}

// in is the kid of a half that a document gives away, or nothing.
func (s search) in(doc []byte) string {
	for i := range len(doc) - 12 + 1 {
		for _, f := range s[[12]byte(doc[i:])] {
			if bytes.HasPrefix(doc[i:], f.needle) {
				return f.kid
			}
		}
	}
	return ""
}

// nowhere searches documents, and every file under the folders, for any of the
// halves. That it can find one it shows on Vault's own text.
func (s *secrets) nowhere(docs map[string][]byte, folders ...string) {
	s.t.Helper()
	for _, folder := range folders {
		must(s.t, filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			docs[path], err = os.ReadFile(path)
			return err
		}))
	}
	if len(s.halves) < 2 || len(docs) < 5 {
		s.t.Errorf("only %d halves and %d documents to search", len(s.halves), len(docs))
	}
	halves := newSearch(s.t, s.halves)
	for kid, text := range s.texts {
		asJSON, err := json.Marshal(map[string]any{"text": text, "bytes": []byte(text)})
		must(s.t, err)
		for _, known := range []string{text, strings.ReplaceAll(text, "\n", ""), string(asJSON), fmt.Sprint([]byte(text)), fmt.Sprintf("%x", text)} {
			if halves.in([]byte(known)) != kid {
				s.t.Fatalf("the search does not find the half of %s in a text that is known to hold it", kid)
			}
		}
	}
	for name, doc := range docs {
		if kid := halves.in(doc); kid != "" {
			s.t.Errorf("the private half of %s shows in %s", kid, name)
		}
	}
}

// answers is all that a daemon says to anybody: what it printed, its answers,
// its errors.
func (d *daemon) answers() map[string][]byte {
	d.t.Helper()
	docs := map[string][]byte{"its output": []byte(d.out.String())}
	add := func(client *http.Client, method, url, body string) {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		must(d.t, err)
		resp, err := client.Do(req)
		if err != nil {
			d.t.Errorf("%s: %v", url, err)
			return
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(d.t, err)
		docs[method+" "+url+" "+body] = text
	}
	for _, path := range []string{"/livez", "/readyz", "/readyz/signer", "/metrics", "/"} {
		add(http.DefaultClient, "GET", "http://"+d.status+path, "")
	}
	for _, path := range []string{"/v1/issuers", "/v1/keys", "/"} {
		add(overUnix(d.admin), "GET", "http://admin"+path, "")
	}
	for _, ring := range []string{"dev", "web", "none"} {
		add(overUnix(d.admin), "POST", "http://admin/v1/rings/"+ring+"/rotate", `{"dry_run":true}`)
	}
	if _, err := os.Stat(d.sign); err != nil {
		return docs
	}
	for _, path := range []string{"/v1/jwks", "/v1/profiles", "/v1/keys"} {
		add(overUnix(d.sign), "GET", "http://sign"+path, "")
	}
	for _, body := range []string{`{}`, `{"profile":"none"}`, `{"profile":"dev","subject":"alice","audience":"demo","ttl_seconds":999999}`, `{"profile":"dev","kid":1}`, `nonsense`} {
		add(overUnix(d.sign), "POST", "http://sign/v1/sign", body)
	}
	return docs
}
