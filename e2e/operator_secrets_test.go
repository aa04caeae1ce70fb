package e2e

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// sealedHalf opens a private half of the local custody with the site's key.
func (s *site) sealedHalf(path string) (text []byte, key crypto.Signer) {
	s.t.Helper()
	seal, err := base64.StdEncoding.DecodeString(string(must1(os.ReadFile(s.path("seal.key")))(s.t)))
	must(s.t, err)
	aead := must1(cipher.NewGCMWithRandomNonce(must1(aes.NewCipher(seal))(s.t)))(s.t)
	box, ok := bytes.CutPrefix(must1(os.ReadFile(path))(s.t), []byte("keyturn sealed 1\n"))
	if !ok {
		s.t.Fatalf("%s is no sealed file", path)
	}
	kid := strings.TrimSuffix(filepath.Base(path), ".sealed")
	text, err = aead.Open(nil, nil, box, []byte("private half\x00main\x00"+kid))
	must(s.t, err)
	block, _ := pem.Decode(text)
	if block == nil {
		s.t.Fatalf("%s holds no PEM", path)
	}
	return text, must1(x509.ParsePKCS8PrivateKey(block.Bytes))(s.t).(crypto.Signer)
}

// TestSecretsOfLocalCustody: after a run through every verb and some faults
// the private halves, and the key that seals them, are in their files alone.
func TestSecretsOfLocalCustody(t *testing.T) {
	t.Parallel()
	// ed rotates by itself, web when it is told to: it would else do so now and then just before.
	s := newSite(t).edit("@every 10s", "@every 1h").edit("rings:\n", "rings:\n"+
		"  - {name: rsa, issuer: main, algorithm: RS256, rsa_bits: 2048, rotate: \"@every 1h\", max_token_ttl: 10s}\n"+
		"  - {name: ed, issuer: main, algorithm: EdDSA, rotate: \"@every 10s\", max_token_ttl: 10s}\n").
		edit("level: info", "level: debug")
	for _, ring := range []string{"rsa", "ed"} {
		s.edit("audit: {", "  - {name: "+ring+", ring: "+ring+", allow: [{socket: default}], subject: {pattern: \".+\"}, audiences: [\"*\"]}\naudit: {")
	}
	d := s.start("web")
	d.canSign(30*time.Second, "rsa")
	d.canSign(30*time.Second, "ed")
	halves := map[string][][]byte{}
	collect := func() {
		files, err := filepath.Glob(s.path("custody/issuers/main/keys/*.sealed"))
		must(t, err)
		for _, f := range files {
			if kid := filepath.Base(f); halves[kid] == nil {
				text, key := s.sealedHalf(f)
				halves[kid] = needles(t, key)
				if !holds(text, halves[kid]) || !holds(bytes.ReplaceAll(text, []byte("\n"), nil), halves[kid]) {
					t.Fatalf("the search does not find %s in its own PEM", kid)
				}
			}
		}
	}
	docs := map[string][]byte{}
	for i := range 2 {
		next := d.standby(20*time.Second, "web")
		d.standby(20*time.Second, "rsa")
		collect()
		for _, ring := range []string{"web", "rsa", "ed"} {
			docs[ring] = append(docs[ring], d.mustToken(ring).Token...)
		}
		docs["rotate"] = []byte(d.ok("rotate", "web", "--yes") + next.Kid)
		for _, args := range [][]string{{"keys", "-o", "json"}, {"status", "-o", "yaml"}, {"jwks"}} {
			docs[strings.Join(args, " ")] = []byte(d.ok(args...))
		}
		if i == 0 { // a broken reload, and a custody that cannot be read
			s.text += "more: 1\n"
			s.reload(d)
			damaged, _ := d.key("rsa", "standby")
			must(t, os.Truncate(s.path("custody/issuers/main/keys/"+damaged.Kid+".sealed"), 60))
			d.stop()
			docs["the output of the first run"] = []byte(d.out.String())
			s.text = strings.TrimSuffix(s.text, "more: 1\n")
			d = s.start("web")
		}
	}
	collect()
	for name, doc := range d.answers() {
		docs[name] = doc
	}
	d.stop()
	docs["its output"] = []byte(d.out.String())
	shown, errs, _ := cli(t, nil, "config", "show", "--config", s.save())
	docs["config show"] = []byte(shown + errs)
	searchSite(t, s, docs, halves)
}

func holds(doc []byte, needles [][]byte) bool {
	return slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(doc, n) })
}

// searchSite looks for the halves and the seal in documents and in every file
// of the site but the one that is the seal.
func searchSite(t *testing.T, s *site, docs map[string][]byte, halves map[string][][]byte) {
	t.Helper()
	seal := must1(os.ReadFile(s.path("seal.key")))(t)
	raw := must1(base64.StdEncoding.DecodeString(string(seal)))(t)
	must(t, filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && path != s.path("seal.key") {
			docs[path], err = os.ReadFile(path)
		}
		return err
	}))
	halves["the seal"] = [][]byte{seal, raw, []byte(hex.EncodeToString(raw)), []byte(base64.RawURLEncoding.EncodeToString(raw))}
	if len(halves) < 8 || len(docs) < 30 || len(docs[s.path("audit.jsonl")]) < 1000 || len(docs[s.path("state/main.manifest.json")]) < 1000 {
		t.Errorf("only %d secrets and %d documents: %v", len(halves), len(docs), docs[s.path("audit.jsonl")])
	}
	for name, doc := range docs {
		for kid, list := range halves {
			if holds(doc, list) {
				t.Errorf("%s shows in %s", kid, name)
			}
		}
		if bytes.Contains(doc, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a PEM of a private key", name)
		}
	}
}
