package custodytest

import (
	"context"
	"crypto"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/keyring"
)

// Manifests is check-and-set on one document per issuer.
type Manifests interface {
	Load(ctx context.Context, issuer string) (*keyring.Snapshot, int, error)
	Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error)
}

// Halves keeps private halves and signs with them.
type Halves interface {
	Create(ctx context.Context, issuer string, alg keyring.Algorithm, rsaBits int) (keyring.JWK, string, error)
	Destroy(ctx context.Context, issuer, handle string) error
	List(ctx context.Context, issuer string) ([]string, error)
	Signer(ctx context.Context, issuer string, k keyring.Key) (crypto.Signer, error)
}

// Custody is what the suite tries.
type Custody interface {
	Manifests
	Halves
	Heads
}

// Open makes an empty custody that generates its keys with gen (nil: for
// real) and is taken down with the test.
type Open func(t *testing.T, gen half.Generator) Custody

// Run tries a custody. The tests run one after the other, each on a new one.
func Run(t *testing.T, open Open) {
	for _, tc := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"no manifest", noManifest},
		{"save and load", saveAndLoad},
		{"stale versions", staleVersions},
		{"concurrent manifests", concurrentManifests},
		{"unknown members", unknownMembers},
		{"what is never written", neverWritten},
		{"names", names},
		{"every algorithm", everyAlgorithm},
		{"no such half", noSuchHalf},
		{"mismatch", mismatch},
		{"destroy", destroy},
		{"write once", writeOnce},
		{"concurrent halves", concurrentHalves},
		{"generation fails", generationFails},
		{"issuers are apart", issuersApart},
		{"redaction", redaction},
		{"audit heads", auditHeads},
		{"concurrent audit heads", concurrentHeads},
	} {
		t.Run(tc.name, func(t *testing.T) { tc.test(t, open) })
	}
}

const issuer = "main"

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return c
}

// Sample is a manifest as one might be in life: generation 1 has no keys.
func Sample(issuer string, generation uint64, keys ...keyring.Key) *keyring.Snapshot {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &keyring.Snapshot{
		Schema: keyring.Schema, Lineage: "lineage-of-" + issuer, Generation: generation, WriteID: WriteID(),
		WrittenAt: at,
		Config: keyring.Config{
			Name: issuer, URL: "https://" + issuer + ".example", Revision: 1, MaxKeys: keyring.DefaultMaxKeys,
			ConsumerCache: keyring.Duration(15 * time.Minute), JWKSMaxAge: keyring.Duration(5 * time.Minute),
			Leeway: keyring.Duration(time.Minute), OutageBudget: keyring.Duration(time.Hour),
			ClockSkew: keyring.Duration(10 * time.Second), SyncInterval: keyring.Duration(10 * time.Second),
			Targets: []keyring.Target{{Name: "file", Kind: keyring.TargetFile, Required: true}},
			Rings: []keyring.Ring{{Name: "web", Algorithm: keyring.ES256, Custody: "any", Rotate: "0 3 * * 0",
				MaxTokenTTL: keyring.Duration(time.Hour)}},
		},
		Lease: at.Add(time.Hour),
		Keys:  keys,
	}
}

// KeyOf is the manifest's entry of a half that was just created.
func KeyOf(jwk keyring.JWK, handle string) keyring.Key {
	return keyring.Key{JWK: jwk, Ring: "web", Custody: "any", Handle: handle,
		Created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
}
