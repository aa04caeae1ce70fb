package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
)

const (
	// floodUID is another user than the one that is measured.
	floodUID = 54321
	// floodConns is how many connections it has.
	floodConns = 64
	// floodLead is how long it floods before anything is measured.
	floodLead = 500 * time.Millisecond
	// floodTail is how much longer it floods than is measured.
	floodTail = 1500 * time.Millisecond
)

// latencies measures how long a request takes at half the rate that the
// socket reached, at even distances; and the same while another user asks as
// fast as answers come. Calm and flooded take turns.
func (b *bench) latencies(ctx context.Context) error {
	half := b.report.Median("es256.socket") / 2
	args := []string{"-socket", b.plain.socket, "-pid", fmt.Sprint(b.plain.cmd.Process.Pid), "-profile", "es256",
		"-rate", fmt.Sprint(half), "-d", b.latency.String()}
	b.report.Add("es256.half_load", "tokens/s", half)
	for range b.latencyRounds {
		calm, err := b.measure(ctx, args...)
		if err != nil {
			return fmt.Errorf("half load: %w", err)
		}
		b.latencyOf("at_half_load", calm)
		if os.Getuid() != 0 {
			note("nobody floods: only root can be another user as well")
			continue
		}
		flooded, err := b.flooded(ctx, args)
		if err != nil {
			return fmt.Errorf("half load beside a flood: %w", err)
		}
		b.latencyOf("flooded", flooded)
	}
	if os.Getuid() == 0 {
		b.report.Compare("p99.flooded/calm", "es256.p99_flooded", "es256.p99_at_half_load")
	}
	return nil
}

func (b *bench) latencyOf(kind string, res load.Result) {
	note("%-24s %s", kind, describe(res))
	b.report.Add("es256.p50_"+kind, "us", float64(res.P50)/1e3)
	b.report.Add("es256.p99_"+kind, "us", float64(res.P99)/1e3)
}

// flooded measures while another process of another user floods.
func (b *bench) flooded(ctx context.Context, args []string) (load.Result, error) {
	type outcome struct {
		res load.Result
		err error
	}
	flood := make(chan outcome, 1)
	go func() {
		// From before the first request that is measured until after the last.
		res, err := b.plain.measure(ctx, "-profile", "es256", "-uid", fmt.Sprint(floodUID), "-c", fmt.Sprint(floodConns), "-tolerate",
			"-verify", "0", "-warmup", floodLead.String(), "-d", (b.latency + floodTail).String())
		flood <- outcome{res, err}
	}()
	select {
	case <-time.After(floodLead):
	case out := <-flood:
		return load.Result{}, errors.Join(errors.New("the flood ended at once"), out.err)
	}
	res, err := b.measure(ctx, args...)
	out := <-flood
	if out.err == nil {
		note("%-24s %s", "the flood", describe(out.res))
		b.report.Add("es256.flood", "tokens/s", out.res.Rate())
	}
	return res, errors.Join(err, out.err)
}
