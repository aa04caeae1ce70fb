package local

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// FuzzUnseal: nothing opens but what was sealed with the key for that name, and
// a refusal says nothing of the text.
func FuzzUnseal(f *testing.F) {
	aead, err := newSeal(bytes.Repeat([]byte{7}, KeySize))
	if err != nil {
		f.Fatal(err)
	}
	text := []byte("-----BEGIN PRIVATE KEY-----")
	whole := sealed(aead, text, "issuers/main/k1")
	f.Add(whole, "issuers/main/k1")
	f.Add(whole, "issuers/main/k2")
	f.Add(whole[:len(whole)-1], "issuers/main/k1")
	f.Add([]byte(magic), "")
	f.Add(bytes.Replace(whole, []byte(magic), []byte("x"), 1), "issuers/main/k1")
	if got, err := unsealed(aead, whole, "issuers/main/k1"); err != nil || !bytes.Equal(got, text) {
		f.Fatalf("unsealed = %q, %v", got, err)
	}
	f.Fuzz(func(t *testing.T, doc []byte, name string) {
		got, err := unsealed(aead, doc, name)
		if err == nil && (name != "issuers/main/k1" || !bytes.Equal(got, text)) {
			t.Fatalf("%q opens as %q for %q", doc, got, name)
		}
		if err != nil && (got != nil || bytes.Contains([]byte(err.Error()), text)) {
			t.Errorf("refused with %q, %v", got, err)
		}
	})
}

// FuzzParseKey: a key has 32 bytes, as they are or in base64, with one spelling.
func FuzzParseKey(f *testing.F) {
	f.Add(bytes.Repeat([]byte{1}, KeySize))
	f.Add([]byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{255}, KeySize)) + "\n"))
	f.Add([]byte("AAAA"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		key, ok := parseKey(doc)
		if !ok {
			return
		}
		if len(key) != KeySize {
			t.Fatalf("a key of %d bytes", len(key))
		}
		// Strict allows line breaks within, which no other spelling uses.
		plain := strings.NewReplacer("\n", "", "\r", "")
		if len(doc) != KeySize && base64.StdEncoding.EncodeToString(key) != plain.Replace(string(bytes.TrimSpace(doc))) {
			t.Errorf("%q is another spelling of a key", doc)
		}
	})
}
