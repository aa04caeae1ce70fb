package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
)

// rate is something whose speed is measured in every round.
type rate struct {
	name string
	run  func(context.Context, string) error // adds to the report under this name
}

// rates measures all speeds, round by round, so that what drifts on this
// machine hits all of them; every second round goes backwards.
func (b *bench) rates(ctx context.Context) error {
	list := []rate{
		{"es256.raw", b.raw("ES256", 0)},
		{"es256.socket", b.socket(b.plain, "es256")},
		{"es256.batch", b.socket(b.plain, "es256", "-batch", "64")},
		{"es256.socket-audited", b.socket(b.audited, "es256")},
		{"es256.socket-go-client", b.goClient},
		{"eddsa.raw", b.raw("EdDSA", 0)},
		{"eddsa.socket", b.socket(b.rings[b.rsaBits[0]], "eddsa")},
	}
	b.report.Compare("es256.socket/raw", "es256.socket", "es256.raw")
	b.report.Compare("es256.batch/raw", "es256.batch", "es256.raw")
	b.report.Compare("eddsa.socket/raw", "eddsa.socket", "eddsa.raw")
	for i, bits := range b.rsaBits {
		name := "rs256"
		if i > 0 {
			name = fmt.Sprintf("rs256-%d", bits)
		}
		list = append(list, rate{name + ".raw", b.raw("RS256", bits)}, rate{name + ".socket", b.socket(b.rings[bits], "rs256")})
		b.report.Compare(name+".socket/raw", name+".socket", name+".raw")
	}
	list = append(list, rate{"es256.vault-transit", b.vault.transit(b)}, rate{"es256.vault-identity", b.vault.identity(b)})
	b.report.Compare("es256.socket-audited/es256.socket", "es256.socket-audited", "es256.socket")
	b.report.Compare("es256.socket/vault-transit", "es256.socket", "es256.vault-transit")
	b.report.Compare("es256.socket/vault-identity", "es256.socket", "es256.vault-identity")
	for round := range b.rounds {
		note("round %d of %d", round+1, b.rounds)
		for _, r := range list {
			if err := r.run(ctx, r.name); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
		slices.Reverse(list)
	}
	return nil
}

// raw signs on all processors, what is as large as the daemon's tokens.
func (b *bench) raw(alg string, bits int) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		res, err := measureRaw(ctx, alg, b.length, "-input", fmt.Sprint(b.input), "-bits", fmt.Sprint(bits))
		if err != nil {
			return err
		}
		note("%-24s %.0f signatures/s · processor µs a signature: %.1f", name, res.Rate(), float64(res.CPU)/1e3/float64(res.Signatures))
		b.report.Add(name, "signatures/s", res.Rate())
		b.report.Add(name+".cpu", "us", float64(res.CPU)/1e3/float64(res.Signatures))
		return nil
	}
}

// socket asks a daemon on 16 connections.
func (b *bench) socket(s *site, profile string, more ...string) func(context.Context, string) error {
	return func(ctx context.Context, name string) error {
		return b.load(ctx, name, append([]string{"-socket", s.socket, "-pid", fmt.Sprint(s.cmd.Process.Pid), "-profile", profile}, more...)...)
	}
}

// load runs the load generator for one measurement of a rate.
func (b *bench) load(ctx context.Context, name string, args ...string) error {
	res, err := b.measure(ctx, append(args, "-patient", "-d", b.length.String())...)
	if err != nil {
		return err
	}
	b.rate(name, res)
	return nil
}

// measure is a run of the load generator that has to be right.
func (b *bench) measure(ctx context.Context, args ...string) (load.Result, error) {
	res, err := measureLoad(ctx, append(args, "-verify", fmt.Sprint(b.verify), "-warmup", min(b.length/4, 500*time.Millisecond).String())...)
	if err == nil && res.Verified == 0 {
		err = errors.New("no token was verified")
	}
	b.verified += res.Verified
	return res, err
}

func (b *bench) rate(name string, res load.Result) {
	note("%-24s %s", name, describe(res))
	b.report.Add(name, "tokens/s", res.Rate())
	b.report.Add(name+".server-cpu", "us", res.PerToken(res.ServerCPU))
	b.report.Add(name+".load-cpu", "us", res.PerToken(res.LoadCPU))
}

// goClient asks with Go's own HTTP client, for what that costs.
func (b *bench) goClient(ctx context.Context, name string) error {
	res, err := again[load.Result](ctx, "goclient", "-socket", b.plain.socket, "-pid", fmt.Sprint(b.plain.cmd.Process.Pid), "-d", b.length.String())
	if err != nil {
		return err
	}
	b.rate(name, res)
	return nil
}

// note tells, apart from the figures, what goes on.
func note(format string, args ...any) {
	fmt.Fprintln(os.Stderr, strings.TrimSpace(fmt.Sprintf(format, args...)))
}
