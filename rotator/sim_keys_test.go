package rotator

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"math/big"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// simKeys hands out public keys. Nobody signs with them, so they are made once
// for all walks; each walk begins anew at the first.
type simKeys struct {
	pool *simPool
	used map[keyring.Algorithm]int
}

type simPool struct {
	mu   sync.Mutex
	made map[keyring.Algorithm][]keyring.JWK
	gaps map[string]time.Duration
}

func newSimPool() *simPool {
	return &simPool{made: map[keyring.Algorithm][]keyring.JWK{}, gaps: map[string]time.Duration{}}
}

// gap is the shortest gap of a schedule, which takes long to find.
func (p *simPool) gap(spec string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.gaps[spec]; !ok {
		s, err := ParseSchedule(spec)
		if err != nil {
			panic(err)
		}
		p.gaps[spec] = s.ShortestGap()
	}
	return p.gaps[spec]
}

func (p *simPool) keys() *simKeys { return &simKeys{p, map[keyring.Algorithm]int{}} }

func (k *simKeys) next(alg keyring.Algorithm) keyring.JWK {
	n := k.used[alg]
	k.used[alg]++
	k.pool.mu.Lock()
	defer k.pool.mu.Unlock()
	for len(k.pool.made[alg]) <= n {
		k.pool.made[alg] = append(k.pool.made[alg], simJWK(alg, len(k.pool.made[alg])))
	}
	return k.pool.made[alg][n]
}

// simJWK is the nth public key of an algorithm, the same in every run.
func simJWK(alg keyring.Algorithm, n int) keyring.JWK {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	secret := sha256.Sum256(seed[:])
	var jwk keyring.JWK
	var err error
	switch {
	case alg.IsRSA():
		m := new(big.Int).Lsh(big.NewInt(1), 2047)
		jwk, err = keyring.NewJWK(&rsa.PublicKey{N: m.Add(m, big.NewInt(int64(2*n+1))), E: 65537}, alg)
	case alg == keyring.EdDSA:
		jwk, err = keyring.NewJWK(ed25519.NewKeyFromSeed(secret[:]).Public(), alg)
	default:
		var key *ecdsa.PrivateKey
		curve := map[keyring.Algorithm]elliptic.Curve{keyring.ES256: elliptic.P256(), keyring.ES384: elliptic.P384(), keyring.ES512: elliptic.P521()}[alg]
		scalar := new(big.Int).SetBytes(secret[1:]).FillBytes(make([]byte, (curve.Params().BitSize+7)/8))
		if key, err = ecdsa.ParseRawPrivateKey(curve, scalar); err == nil {
			jwk, err = keyring.NewJWK(&key.PublicKey, alg)
		}
	}
	if err != nil {
		panic(err)
	}
	return jwk
}
