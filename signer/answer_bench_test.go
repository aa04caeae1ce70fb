package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/keys/keystest"
)

const orderBody = `{"profile":"p-ES256","subject":"user-7","audience":"api://orders","ttl_seconds":300,"claims":{"tenant":"acme","scope":"read write"}}`

// BenchmarkAnswer is one decision past HTTP: parse, judge, encode and sign, with
// no audit log; beside it the bare signature over a digest, for what the rest costs.
func BenchmarkAnswer(b *testing.B) {
	for _, alg := range []keyring.Algorithm{keyring.ES256, keyring.EdDSA} {
		w := newWorld(b, alg)
		w.cfg.Profiles[0].Name = "p-ES256"
		w.cfg.Audit, w.cfg.AuditOptional = nil, true
		w.start().ready()
		b.Run(string(alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, prob := w.s.answer(context.Background(), alice, []byte(orderBody)); prob != nil {
					b.Fatal(prob)
				}
			}
		})
	}
}

// BenchmarkBatch is one token of a batch of 64, past the network.
func BenchmarkBatch(b *testing.B) {
	w := newWorld(b, keyring.ES256)
	w.cfg.Audit, w.cfg.AuditOptional = nil, true
	w.start().ready()
	h := w.s.Handler("default")
	ctx := unixsock.WithPeer(b.Context(), alice.Peer)
	body := `{"requests":[` + strings.Repeat(orderBody+",", 63) + orderBody + `]}`
	b.ReportAllocs()
	for range b.N/64 + 1 {
		r, err := http.NewRequestWithContext(ctx, "POST", "/v1/sign/batch", strings.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		h.ServeHTTP(discard{http.Header{}}, r)
	}
}

func BenchmarkRawES256(b *testing.B) {
	key := keystest.NewHalf(b, keyring.ES256).(*ecdsa.PrivateKey)
	digest := sha256.Sum256([]byte(orderBody))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
}
