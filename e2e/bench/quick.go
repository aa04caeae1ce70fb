package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/report"
)

func quickCommand(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("bench quick", flag.ContinueOnError)
	algs := fs.String("algs", "ES256", "algorithms, with commas between them")
	length := fs.Duration("d", 3*time.Second, "how long each measurement takes")
	rounds := fs.Int("rounds", 1, "how often all is measured, in turn")
	latency := fs.Duration("latency", 0, "measure latencies too, calm and flooded, for this long each")
	binaries := fs.String("binary", "", "keyturn to measure, or several with commas between them to compare; built from this tree without it")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var list []string
	if *binaries != "" {
		list = strings.Split(*binaries, ",")
	} else {
		dir, err := os.MkdirTemp("", "keyturn-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		bin := filepath.Join(dir, "keyturn")
		if err := build(ctx, bin); err != nil {
			return err
		}
		list = []string{bin}
	}
	o := options{algs: strings.Split(*algs, ","), rsaBits: 3072}
	sites := make([]*site, len(list))
	for i, bin := range list {
		o.binary = bin
		if sites[i], err = newSite(ctx, o); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, sites[i].close()) }()
	}
	for range *rounds {
		for _, alg := range o.algs {
			if err := quickRound(ctx, sites, alg, *length); err != nil {
				return err
			}
		}
	}
	if *latency == 0 {
		return nil
	}
	for _, s := range sites {
		if err := quickLatency(ctx, s, *length, *latency); err != nil {
			return err
		}
	}
	return nil
}

// quickLatency measures latencies at half the rate that a daemon reaches now.
func quickLatency(ctx context.Context, s *site, length, latency time.Duration) error {
	b := &bench{plan: plan{length: length, latencyRounds: 1, latency: latency, verify: 97}, report: report.New(), plain: s}
	if err := b.socket(s, "es256")(ctx, "es256.socket"); err != nil {
		return err
	}
	if err := b.latencies(ctx); err != nil {
		return err
	}
	return b.report.Write(os.Stdout)
}

// quickRound measures one algorithm at each of the daemons in turn.
func quickRound(ctx context.Context, sites []*site, alg string, length time.Duration) error {
	name := strings.ToLower(alg)
	bare, err := measureRaw(ctx, alg, length)
	if err != nil {
		return err
	}
	fmt.Printf("bench %s.raw %.0f /s (%.1f processor µs a signature)\n", name, bare.Rate(), float64(bare.CPU)/1e3/float64(bare.Signatures))
	for i, s := range sites {
		for _, kind := range []struct {
			name string
			args []string
		}{{"socket", nil}, {"batch", []string{"-batch", "64"}}} {
			res, err := s.measure(ctx, append(kind.args, "-patient", "-profile", name, "-d", length.String())...)
			if err != nil {
				return err
			}
			label := fmt.Sprintf("%s.%s", name, kind.name)
			if len(sites) > 1 {
				label += fmt.Sprintf("[%d]", i)
			}
			fmt.Printf("bench %s %.0f /s\n      %s\n", label, res.Rate(), describe(res))
			fmt.Printf("ratio %s/raw %.3f   (by processor time: %.3f)\n", label, res.Rate()/bare.Rate(),
				float64(bare.CPU)/float64(bare.Signatures)/(float64(res.ServerCPU+res.LoadCPU)/float64(res.Tokens)))
		}
	}
	return nil
}

// build makes the binary that users run.
func build(ctx context.Context, path string) error {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/keyturn/keyturn").Output()
	if err != nil {
		return fmt.Errorf("find keyturn's source: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", "timetzdata", "-ldflags", "-s -w", "-o", path, "./cmd/keyturn")
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
