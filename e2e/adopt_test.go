package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// foreignIssuer is what signed before keyturn came: two keys, a set that it
// wrote by hand, and a token of each that lives on.
type foreignIssuer struct {
	kids   []string
	tokens []string
	set    []byte
}

// newForeignIssuer writes its set as others do: with members that keyturn does
// not have, and without some that it has.
func newForeignIssuer(t *testing.T) foreignIssuer {
	t.Helper()
	f := foreignIssuer{kids: []string{"2024-signing", "old/rsa"}}
	ec := must1(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	rsaKey := must1(rsa.GenerateKey(rand.Reader, 2048))(t)
	var keys []map[string]any
	for i, half := range []crypto.Signer{ec, rsaKey} {
		alg := []jose.SignatureAlgorithm{jose.ES256, jose.RS256}[i]
		signer := must1(jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: half, KeyID: f.kids[i]}}, nil))(t)
		f.tokens = append(f.tokens, must1(must1(signer.Sign([]byte(`{"sub":"from before"}`)))(t).CompactSerialize())(t))
		doc := must1(json.Marshal(jose.JSONWebKey{Key: half.Public(), KeyID: f.kids[i], Algorithm: string(alg)}))(t)
		var members map[string]any
		must(t, json.Unmarshal(doc, &members))
		keys = append(keys, members)
	}
	delete(keys[0], "alg") // its curve says it
	keys[0]["x-issued-by"] = "a script of 2019"
	keys[1]["key_ops"] = []string{"verify"}
	f.set = must1(json.MarshalIndent(map[string]any{"comment": "by hand", "keys": keys}, "", "    "))(t)
	return f
}

// verifies checks a token with a published set, as a consumer does that reads
// it now.
func verifies(doc []byte, raw string) error {
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(doc, &set); err != nil {
		return err
	}
	tok, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	if err != nil {
		return err
	}
	keys := set.Key(tok.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		return fmt.Errorf("%d keys of the kid %s", len(keys), tok.Signatures[0].Header.KeyID)
	}
	_, err = tok.Verify(keys[0])
	return err
}

// takeOver polls a file while keyturn takes it over.
type takeOver struct {
	t      *testing.T
	file   string
	theirs foreignIssuer
	until  time.Time

	mu      sync.Mutex
	ours    []string  // tokens of keyturn's
	without time.Time // when the file was last seen without a key of keyturn's
	looks   int
}

func (w *takeOver) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t.Failed() {
		return // one look is enough to tell
	}
	began := time.Now()
	doc, err := os.ReadFile(w.file)
	ended := time.Now()
	if err != nil {
		w.t.Errorf("the published file: %v", err)
		return
	}
	w.looks++
	if bytes.Equal(doc, w.theirs.set) {
		w.without = began
	}
	if ended.Before(w.until) {
		for _, raw := range w.theirs.tokens {
			if err := verifies(doc, raw); err != nil {
				w.t.Errorf("%s before adopt_until a token from before: %v", w.until.Sub(ended), err)
			}
		}
	}
	for _, raw := range w.ours {
		if err := verifies(doc, raw); err != nil {
			w.t.Errorf("a token of keyturn's: %v", err)
		}
	}
}

func (w *takeOver) sign(d *daemon) error {
	tok, err := d.token(ask("web"))
	if err != nil {
		return err
	}
	w.mu.Lock()
	w.ours = append(w.ours[max(0, len(w.ours)-20):], tok.Token)
	w.mu.Unlock()
	w.look()
	return nil
}

// TestForeignSetIsTakenOver: where a set of others stands, keyturn refuses to
// publish until the file says how long its keys are needed. Then it takes the
// set over, and at no instant does a consumer miss a key: not theirs until the
// date, not keyturn's once it signs. After the date theirs are gone.
func TestForeignSetIsTakenOver(t *testing.T) {
	t.Parallel()
	theirs := newForeignIssuer(t)
	s := newSite(t).edit("      - {name: endpoint, http: true}\n", "")
	file := s.path("www/jwks.json")
	must(t, os.WriteFile(file, theirs.set, 0o644))
	w := &takeOver{t: t, file: file, theirs: theirs, until: time.Now().Add(20 * time.Second).Truncate(time.Millisecond)}
	s.edit("file: www/jwks.json", `file: www/jwks.json, adopt_until: "`+w.until.Format(time.RFC3339Nano)+`"`)
	d := s.run()
	stop := make(chan struct{})
	var polling sync.WaitGroup
	polling.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				w.look()
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); polling.Wait() })
	defer end()

	within(t, 15*time.Second, "first token", func() error { return w.sign(d) })
	first := time.Now()
	w.mu.Lock()
	if wait := first.Sub(w.without); w.without.IsZero() || wait < 2*time.Second {
		t.Errorf("signed %s after the file was seen without keyturn's key: consumers keep a set for 2 s", wait)
	}
	w.mu.Unlock()
	within(t, 30*time.Second, "the end of what was adopted", func() error {
		if err := w.sign(d); err != nil {
			t.Errorf("sign: %v", err)
		}
		doc, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for i, raw := range theirs.tokens {
			if verifies(doc, raw) == nil {
				return fmt.Errorf("key %s still stands there", theirs.kids[i])
			}
		}
		return nil
	})
	if early := time.Until(w.until); early > 0 {
		t.Errorf("their keys left %s before adopt_until", early)
	}
	end()
	if w.looks < 200 {
		t.Errorf("looked %d times only", w.looks)
	}
	t.Logf("first token %s after the last look without keyturn's key; %d looks", first.Sub(w.without).Round(time.Millisecond), w.looks)
}

// TestForeignSetIsRefused: without adopt_until nobody touches what others wrote,
// and the reason says how to go on.
func TestForeignSetIsRefused(t *testing.T) {
	t.Parallel()
	theirs := newForeignIssuer(t)
	s := newSite(t)
	file := s.path("www/jwks.json")
	must(t, os.WriteFile(file, theirs.set, 0o644))
	d := s.run()
	within(t, 20*time.Second, "the refusal", func() error {
		code, h, err := d.health("/readyz")
		if err != nil {
			return err
		}
		for _, r := range h.Reasons {
			if r.Code == "publish_refused" {
				wants(t, r.Message, "was not written by keyturn", "adopt_until")
				return nil
			}
		}
		return fmt.Errorf("%d %+v", code, h)
	})
	if _, err := d.token(ask("web")); err == nil {
		t.Error("it signs with a key that the file does not have")
	}
	doc := must1(os.ReadFile(file))(t)
	if _, err := os.Lstat(file + ".keyturn"); !bytes.Equal(doc, theirs.set) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the foreign set was touched (%v):\n%s", err, doc)
	}
}
