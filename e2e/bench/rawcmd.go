package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/raw"
)

// inputSize is what the daemon signs for the load's request: the header and
// the payload of such a token, encoded.
const inputSize = 432

// rawCommand signs on all processors, as a process.
func rawCommand(args []string) error {
	var cfg raw.Config
	fs := flag.NewFlagSet("bench raw", flag.ContinueOnError)
	fs.StringVar(&cfg.Algorithm, "alg", "ES256", "ES256, RS256 or EdDSA")
	fs.IntVar(&cfg.Bits, "bits", 3072, "size of an RSA key")
	fs.IntVar(&cfg.Input, "input", inputSize, "bytes that are signed")
	fs.DurationVar(&cfg.Duration, "d", 3*time.Second, "how long")
	asJSON := fs.Bool("json", false, "print JSON, times in nanoseconds")
	if err := fs.Parse(args); err != nil {
		return err
	}
	res, err := raw.Run(cfg)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(res)
	}
	_, err = fmt.Printf("%.0f signatures/s · processor µs a signature: %.1f\n", res.Rate(), float64(res.CPU)/1e3/float64(res.Signatures))
	return err
}
