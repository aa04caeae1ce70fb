package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// canaries are private halves that are known, to be found wherever they sing.
type canaries struct {
	t     *testing.T
	keys  map[string]crypto.Signer
	cages []string // the files in which they may be
}

// numbers are all that gives a private half away: of RSA also what follows from
// the primes, of Ed25519 also what the seed expands to.
func numbers(t *testing.T, key crypto.Signer) [][]byte {
	t.Helper()
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		d, err := k.Bytes()
		must(t, err)
		return [][]byte{d}
	case ed25519.PrivateKey:
		expanded := sha512.Sum512(k.Seed())
		return [][]byte{k.Seed(), expanded[:32], expanded[32:]}
	case *rsa.PrivateKey:
		p := k.Precomputed
		return [][]byte{k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes(), p.Dp.Bytes(), p.Dq.Bytes(), p.Qinv.Bytes()}
	}
	t.Fatalf("a private half of type %T", key)
	return nil
}

// search finds the canaries in the encodings of files, logs and JSON, and as
// dumps have them: as memory lies, and word by word.
func (c *canaries) search() search {
	c.t.Helper()
	s := newSearch(c.t, c.keys)
	add := func(kid string, n []byte) {
		if len(n) >= 12 {
			s[[12]byte(n)] = append(s[[12]byte(n)], found{n, kid})
		}
	}
	for kid, key := range c.keys {
		for _, number := range numbers(c.t, key) {
			add(kid, []byte(new(big.Int).SetBytes(number).String()))
			memory := slices.Clone(number) // little-endian, as the limbs of a number lie
			slices.Reverse(memory)
			for _, order := range [][]byte{number, memory} {
				for i := range len(order) - 12 + 1 {
					for _, n := range encodings(order[i : i+12]) {
						add(kid, n)
					}
				}
				for i := 0; i+8 <= len(order); i++ {
					for _, word := range []uint64{binary.BigEndian.Uint64(order[i:]), binary.LittleEndian.Uint64(order[i:])} {
						add(kid, fmt.Appendf(nil, "%x", word))
						add(kid, strconv.AppendUint(nil, word, 10))
					}
				}
			}
		}
	}
	return s
}

// silent wants no canary in any document, nor in any file under the folders but
// the cages. That it would hear one it shows on texts that hold one.
func (c *canaries) silent(docs map[string][]byte, folders ...string) {
	c.t.Helper()
	for _, folder := range folders {
		must(c.t, filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() || slices.Contains(c.cages, path) {
				return err
			}
			docs[path], err = os.ReadFile(path)
			return err
		}))
	}
	s := c.search()
	for kid, key := range c.keys {
		for how, text := range songs(c.t, key) {
			if s.in(text) != kid {
				c.t.Fatalf("the search does not hear %s in %s", kid, how)
			}
		}
	}
	size := 0
	for name, doc := range docs {
		size += len(doc)
		if kid := s.in(doc); kid != "" {
			c.t.Errorf("the private half %s shows in %s", kid, name)
		}
		if bytes.Contains(doc, []byte("PRIVATE KEY")) {
			c.t.Errorf("%s holds a PEM of a private key", name)
		}
	}
	c.t.Logf("%d keys, %d documents, %d KB", len(c.keys), len(docs), size/1024)
}

// songs are texts that give a key away.
func songs(t *testing.T, key crypto.Signer) map[string][]byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	inJSON, err := json.Marshal(map[string]any{"text": string(text), "bytes": der})
	must(t, err)
	all := numbers(t, key)
	last := all[len(all)-1]
	memory := slices.Clone(last)
	slices.Reverse(memory)
	out := map[string][]byte{
		"DER": der, "a PEM": text, "a PEM in one line": bytes.ReplaceAll(text, []byte("\n"), nil), "JSON": inJSON, "memory": memory,
		"%x": fmt.Appendf(nil, "%x", der), "%X": fmt.Appendf(nil, "%X", der), "%q": fmt.Appendf(nil, "%q", text), "%v of bytes": fmt.Append(nil, text),
		"a decimal":        []byte(new(big.Int).SetBytes(last).String()),
		"an argument":      fmt.Appendf(nil, "main.f(0x1, %#x, 0x2)", binary.BigEndian.Uint64(last[8:])),
		"a register":       fmt.Appendf(nil, "rax    %#x\n", binary.LittleEndian.Uint64(last)),
		"a slice of words": fmt.Append(nil, []uint64{7, binary.BigEndian.Uint64(last[len(last)-8:])}),
	}
	for shift := range 3 {
		cut := append(der[:shift:shift], last...)
		out[fmt.Sprintf("base64 from %d", shift)] = []byte(base64.StdEncoding.EncodeToString(cut))
		out[fmt.Sprintf("base64url from %d", shift)] = []byte(base64.RawURLEncoding.EncodeToString(cut))
	}
	return out
}

// TestCanarySearch: each kind of key is heard in each of its songs, and no
// other key.
func TestCanarySearch(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	c := &canaries{t: t, keys: map[string]crypto.Signer{
		"ec": must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t), "ec large": must1(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))(t),
		"rsa": must1(rsa.GenerateKey(rand.Reader, 2048))(t), "ed": ed,
	}}
	other := must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	docs := map[string][]byte{}
	for how, text := range songs(t, other) {
		if how != "a PEM" && how != "a PEM in one line" && how != "%q" && how != "JSON" { // which say what they are
			docs[how] = text
		}
	}
	c.silent(docs)
}
