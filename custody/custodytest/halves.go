package custodytest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/keyring"
)

func create(t *testing.T, c Custody, alg keyring.Algorithm, bits int) keyring.Key {
	t.Helper()
	jwk, handle, err := c.Create(ctx(t), issuer, alg, bits)
	if err != nil {
		t.Fatalf("create %s: %v", alg, err)
	}
	if handle == "" || jwk.Alg != alg || jwk.Kid != jwk.Thumbprint() {
		t.Fatalf("created %+v with handle %q", jwk, handle)
	}
	return KeyOf(jwk, handle)
}

func signer(t *testing.T, c Custody, k keyring.Key) crypto.Signer {
	t.Helper()
	s, err := c.Signer(ctx(t), issuer, k)
	if err != nil {
		t.Fatalf("signer of %s: %v", k.JWK.Alg, err)
	}
	return s
}

func wantList(t *testing.T, c Custody, keys ...keyring.Key) {
	t.Helper()
	want := []string{}
	for _, k := range keys {
		want = append(want, k.JWK.Kid)
	}
	slices.Sort(want)
	got, err := c.List(ctx(t), issuer)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, append([]string{}, got...)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

func everyAlgorithm(t *testing.T, open Open) {
	c := open(t, nil)
	var keys []keyring.Key
	for _, alg := range keyring.Algorithms() {
		bits := 0
		if alg.IsRSA() {
			bits = map[keyring.Algorithm]int{keyring.RS384: 3072, keyring.PS512: 4096}[alg]
			bits = max(bits, 2048)
		}
		k := create(t, c, alg, bits)
		keys = append(keys, k)
		s := signer(t, c, k)
		if p, ok := s.Public().(*rsa.PublicKey); ok && p.N.BitLen() != bits {
			t.Errorf("%s: %d bits, want %d", alg, p.N.BitLen(), bits)
		}
		checkSigner(t, s, k.JWK)
	}
	wantList(t, c, keys...)
	if _, _, err := c.Create(ctx(t), issuer, "HS256", 0); err == nil {
		t.Error("a shared secret was created")
	}
	if _, _, err := c.Create(ctx(t), issuer, keyring.RS256, 1024); err == nil {
		t.Error("RSA of 1024 bits was created")
	}
	wantList(t, c, keys...)
}

// checkSigner signs as the algorithm says and verifies with what is published.
func checkSigner(t *testing.T, s crypto.Signer, jwk keyring.JWK) {
	t.Helper()
	public, err := jwk.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("header.payload")
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[string(jwk.Alg[2:])]
	digest := message
	var opts crypto.SignerOpts = hash
	if hash != 0 {
		h := hash.New()
		h.Write(message)
		digest = h.Sum(nil)
	}
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	if strings.HasPrefix(string(jwk.Alg), "PS") {
		opts = pss
	}
	sig, err := s.Sign(nil, digest, opts)
	if err != nil {
		t.Errorf("%s: %v", jwk.Alg, err)
		return
	}
	ok := false
	switch p := public.(type) {
	case *rsa.PublicKey:
		if opts == crypto.SignerOpts(pss) {
			ok = rsa.VerifyPSS(p, hash, digest, sig, pss) == nil
		} else {
			ok = rsa.VerifyPKCS1v15(p, hash, digest, sig) == nil
		}
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(p, digest, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(p, digest, sig)
	}
	if !ok {
		t.Errorf("%s: the signature does not verify with the published half", jwk.Alg)
	}
}

func noSuchHalf(t *testing.T, open Open) {
	c := open(t, nil)
	there := create(t, c, keyring.ES256, 0)
	gone := there
	gone.Handle = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	if s, err := c.Signer(ctx(t), issuer, gone); !errors.Is(err, keyring.ErrNoKey) || s != nil {
		t.Errorf("Signer = %v, %v; want ErrNoKey", s, err)
	}
}

func mismatch(t *testing.T, open Open) {
	c := open(t, nil)
	a, b := create(t, c, keyring.ES256, 0), create(t, c, keyring.ES256, 0)
	mixed := a
	mixed.Handle = b.Handle
	if s, err := c.Signer(ctx(t), issuer, mixed); !errors.Is(err, keyring.ErrMismatch) || s != nil {
		t.Errorf("the half of another key: Signer = %v, %v; want ErrMismatch", s, err)
	}
	rsaKey := create(t, c, keyring.RS256, 2048)
	rsaKey.JWK.Alg = keyring.PS256
	if s, err := c.Signer(ctx(t), issuer, rsaKey); err == nil {
		checkSigner(t, s, rsaKey.JWK) // one key pair, two algorithms: what is handed out must at least be true
	}
}

func destroy(t *testing.T, open Open) {
	c := open(t, nil)
	a, b := create(t, c, keyring.ES256, 0), create(t, c, keyring.EdDSA, 0)
	for range 2 { // the second time there is nothing left to do
		if err := c.Destroy(ctx(t), issuer, a.Handle); err != nil {
			t.Fatal(err)
		}
		if s, err := c.Signer(ctx(t), issuer, a); !errors.Is(err, keyring.ErrNoKey) || s != nil {
			t.Errorf("after destruction: Signer = %v, %v; want ErrNoKey", s, err)
		}
		wantList(t, c, b)
	}
	checkSigner(t, signer(t, c, b), b.JWK)
	if err := c.Destroy(ctx(t), "never-seen", a.Handle); err != nil {
		t.Errorf("Destroy at an issuer without halves: %v", err)
	}
	if err := c.Destroy(ctx(t), issuer, b.Handle); err != nil {
		t.Fatal(err)
	}
	wantList(t, c)
}

// same makes one key over and over.
func same(t *testing.T) half.Generator {
	t.Helper()
	private, err := half.Random(keyring.ES256, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func(keyring.Algorithm, int) (crypto.Signer, error) { return private, nil }
}

func writeOnce(t *testing.T, open Open) {
	c := open(t, same(t))
	k := create(t, c, keyring.ES256, 0)
	if _, handle, err := c.Create(ctx(t), issuer, keyring.ES256, 0); !errors.Is(err, fs.ErrExist) || handle != "" {
		t.Errorf("a second deposit: %q, %v; want fs.ErrExist", handle, err)
	}
	checkSigner(t, signer(t, c, k), k.JWK)
	wantList(t, c, k)
}

func concurrentHalves(t *testing.T, open Open) {
	c := open(t, same(t))
	const racers = 8
	var errs [racers]error
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { _, _, errs[i] = c.Create(ctx(t), issuer, keyring.ES256, 0) })
	}
	wg.Wait()
	winners := 0
	for _, err := range errs {
		switch {
		case err == nil:
			winners++
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("a loser got %v, want fs.ErrExist", err)
		}
	}
	if winners != 1 {
		t.Errorf("%d winners", winners)
	}
}

// generationFails is fault 36: a pair that cannot be made or does not prove
// itself leaves nothing behind.
func generationFails(t *testing.T, open Open) {
	broken := errors.New("no entropy today")
	bad := false
	c := open(t, func(alg keyring.Algorithm, bits int) (crypto.Signer, error) {
		if !bad {
			return nil, broken
		}
		a, errA := half.Random(alg, bits)
		b, errB := half.Random(alg, bits)
		if err := errors.Join(errA, errB); err != nil {
			return nil, err
		}
		a.(*ecdsa.PrivateKey).PublicKey = b.(*ecdsa.PrivateKey).PublicKey
		return a, nil
	})
	if _, _, err := c.Create(ctx(t), issuer, keyring.ES256, 0); !errors.Is(err, broken) {
		t.Errorf("Create = %v, want the generator's error", err)
	}
	bad = true
	if _, _, err := c.Create(ctx(t), issuer, keyring.ES256, 0); err == nil {
		t.Error("a key pair that does not belong together was deposited")
	}
	wantList(t, c)
}

func issuersApart(t *testing.T, open Open) {
	c := open(t, nil)
	k := create(t, c, keyring.ES256, 0)
	if _, err := c.Signer(ctx(t), "other", k); !errors.Is(err, keyring.ErrNoKey) {
		t.Errorf("the half of another issuer: %v, want ErrNoKey", err)
	}
	if err := c.Destroy(ctx(t), "other", k.Handle); err != nil {
		t.Error(err)
	}
	if kids, err := c.List(ctx(t), "other"); err != nil || len(kids) > 0 {
		t.Errorf("List of another issuer = %q, %v", kids, err)
	}
	checkSigner(t, signer(t, c, k), k.JWK)
	mine, theirs := Sample(issuer, 1), Sample("other", 1)
	v1, v2 := save(t, c, mine, 0), save(t, c, theirs, 0)
	wantStored(t, c, mine, v1)
	wantStored(t, c, theirs, v2)
}

func redaction(t *testing.T, open Open) {
	c := open(t, nil)
	s := signer(t, c, create(t, c, keyring.EdDSA, 0))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		if got := fmt.Sprintf(verb, s); got != "[redacted]" {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	if doc, err := json.Marshal(map[string]any{"key": s}); err != nil || string(doc) != `{"key":"[redacted]"}` {
		t.Errorf("JSON %s, %v", doc, err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("a key", "key", s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("a key", "key", s)
	if got := log.String(); strings.Count(got, "[redacted]") != 2 {
		t.Errorf("logged as %s", got)
	}
}
