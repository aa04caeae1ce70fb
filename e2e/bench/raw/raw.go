package raw

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config says what is signed with.
type Config struct {
	// Algorithm is ES256, RS256 or EdDSA.
	Algorithm string
	// Bits is the size of an RSA key.
	Bits int
	// Input is the size of what is signed: header and payload of a token.
	Input int
	// Duration is how long all processors sign.
	Duration time.Duration
}

// Result is what was measured. Times are nanoseconds in JSON.
type Result struct {
	Signatures int64         `json:"signatures"`
	Elapsed    time.Duration `json:"elapsed_ns"`
	CPU        time.Duration `json:"cpu_ns"`
}

// Rate is signatures a second, on all processors together.
func (r Result) Rate() float64 { return float64(r.Signatures) / r.Elapsed.Seconds() }

// warmup is not measured: the first signatures build tables.
const warmup = 100 * time.Millisecond

// heapGrowth lets the collector run as seldom as the daemon does: signatures
// leave garbage, and the smallest of heaps would be collected all the time.
const heapGrowth = 300

// Run signs on as many threads as there are processors. What is measured is
// the call of crypto.Signer that the daemon makes, the hash of the input
// included (ECDSA without a source of randomness: RFC 6979), and no token.
func Run(cfg Config) (Result, error) {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(heapGrowth))
	}
	key, hash, err := newKey(cfg)
	if err != nil {
		return Result{}, err
	}
	var (
		wg     sync.WaitGroup
		ended  atomic.Bool
		total  atomic.Int64 // a signature takes a thousand times as long as the count
		faults = make([]error, runtime.GOMAXPROCS(0))
	)
	for i := range faults {
		wg.Go(func() {
			input := slices.Repeat([]byte{byte(i)}, cfg.Input)
			for !ended.Load() && faults[i] == nil {
				input[0]++
				faults[i] = sign(key, hash, input)
				total.Add(1)
			}
		})
	}
	time.Sleep(warmup)
	cpu, before, began := processorTime(), total.Load(), time.Now()
	// A machine that kept everybody waiting gets until the first signature.
	for time.Sleep(cfg.Duration); total.Load() == before && time.Since(began) < cfg.Duration+10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	res := Result{Signatures: total.Load() - before, Elapsed: time.Since(began), CPU: processorTime() - cpu}
	ended.Store(true)
	wg.Wait()
	return res, errors.Join(faults...)
}

func newKey(cfg Config) (crypto.Signer, crypto.Hash, error) {
	switch cfg.Algorithm {
	case "ES256":
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return key, crypto.SHA256, err
	case "RS256":
		key, err := rsa.GenerateKey(rand.Reader, cfg.Bits)
		return key, crypto.SHA256, err
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, crypto.Hash(0), err
	}
	return nil, 0, fmt.Errorf("algorithm %q: ES256, RS256 and EdDSA are measured", cfg.Algorithm)
}

func sign(key crypto.Signer, hash crypto.Hash, input []byte) error {
	if hash == crypto.SHA256 {
		sum := sha256.Sum256(input)
		input = sum[:]
	}
	_, err := key.Sign(nil, input, hash)
	return err
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
