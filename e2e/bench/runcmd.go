package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/report"
)

// plan says how long everything takes.
type plan struct {
	binary, vault string
	rounds        int
	length        time.Duration // of one measurement of a rate
	latencyRounds int
	latency       time.Duration // of one measurement of latencies
	rest          time.Duration // before the memory of an idle daemon is read
	rsaBits       []int         // the first one is the default of a ring
	verify        int           // every which token is verified
	out           io.Writer
}

// bench is a run: the daemons and the Vault that are measured, side by side
// from the first measurement to the last.
type bench struct {
	plan
	report *report.Report
	// plain has one ring and no audit log, rings the other algorithms, audited
	// a log without whose line no token is released.
	plain, audited *site
	rings          map[int]*site // by the size of their RSA keys
	vault          *vaultSite

	input    int // bytes that a token's signature covers
	verified int // tokens, of all measurements
}

func runCommand(ctx context.Context, args []string) error {
	p := plan{rsaBits: []int{3072, 2048}, out: os.Stdout}
	fs := flag.NewFlagSet("bench run", flag.ContinueOnError)
	fs.StringVar(&p.binary, "binary", "", "keyturn as users run it (make build)")
	fs.StringVar(&p.vault, "vault", "", "Vault server binary; VAULT_BIN, bin/vault or PATH without it")
	fs.IntVar(&p.rounds, "rounds", 9, "rounds of rates, each measuring all of them in turn")
	fs.DurationVar(&p.length, "d", 1200*time.Millisecond, "how long one measurement of a rate takes")
	fs.IntVar(&p.latencyRounds, "latency-rounds", 3, "rounds of latencies")
	fs.DurationVar(&p.latency, "latency", 5*time.Second, "how long one measurement of latencies takes")
	fs.IntVar(&p.verify, "verify", 97, "every which token is verified")
	fs.DurationVar(&p.rest, "rest", 3*time.Second, "how long the daemon idles before its memory is read")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if p.binary == "" {
		return errors.New("say which keyturn to measure: --binary bin/keyturn")
	}
	return p.run(ctx)
}

func (p plan) run(ctx context.Context) (err error) {
	b := &bench{plan: p, report: report.New(), rings: map[int]*site{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	if err := b.rates(ctx); err != nil {
		return err
	}
	if err := b.latencies(ctx); err != nil {
		return err
	}
	if err := b.memory("memory.under_load", "VmHWM", b.plain); err != nil {
		return err
	}
	b.report.Add("tokens.verified", "tokens", float64(b.verified))
	return b.report.Write(p.out)
}

// open starts everything, and reads the memory of the daemon that has signed
// one token and nothing else.
func (b *bench) open(ctx context.Context) (err error) {
	o := options{binary: b.binary, algs: []string{"ES256"}}
	if b.plain, err = newSite(ctx, o); err != nil {
		return err
	}
	if b.input, err = inputOf(b.plain); err != nil {
		return err
	}
	note("the signature of a token covers %d bytes", b.input)
	select {
	case <-time.After(b.rest):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := b.memory("memory.idle", "VmRSS", b.plain); err != nil {
		return err
	}
	o.audited = true
	if b.audited, err = newSite(ctx, o); err != nil {
		return err
	}
	o.audited, o.algs = false, []string{"RS256", "EdDSA"}
	for _, bits := range b.rsaBits {
		o.rsaBits = bits
		if b.rings[bits], err = newSite(ctx, o); err != nil {
			return err
		}
		o.algs = []string{"RS256"}
	}
	b.vault, err = newVault(ctx, b.plan.vault, b.input)
	return err
}

func (b *bench) close() error {
	var errs []error
	sites := []*site{b.plain, b.audited}
	for _, s := range b.rings {
		sites = append(sites, s)
	}
	for _, s := range sites {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	if b.vault != nil {
		errs = append(errs, b.vault.close())
	}
	return errors.Join(errs...)
}

// inputOf is the size of what the daemon signs for the load's request: the
// token without its signature.
func inputOf(s *site) (int, error) {
	raw, err := s.token("es256")
	if err != nil {
		return 0, err
	}
	size := strings.LastIndexByte(raw, '.')
	if size < 0 {
		return 0, errors.New("the daemon's token has no signature")
	}
	return size, nil
}

// memory reads a line of /proc/PID/status, in MB.
func (b *bench) memory(name, field string, s *site) error {
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(doc)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, field+": %f kB", &kb); n == 1 {
			b.report.Add(name, "MB", kb/1024)
			return nil
		}
	}
	return fmt.Errorf("/proc says no %s of process %d", field, s.cmd.Process.Pid)
}
