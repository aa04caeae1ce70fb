package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/e2e/bench/load"
	"github.com/keyturn/keyturn/e2e/bench/profile"
	"github.com/keyturn/keyturn/e2e/bench/report"
)

// profileCommand tells where the time of a token goes, in a table and a picture.
func profileCommand(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("bench profile", flag.ContinueOnError)
	binary := fs.String("binary", "", "keyturn with its symbols (built without -s -w)")
	length := fs.Duration("d", 8*time.Second, "how long each kind of request is watched")
	picture := fs.String("svg", "", "file for the picture")
	doc := fs.String("doc", "", "document with a block for the table")
	most := fs.Int("functions", 0, "how many functions to print of each kind")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *binary == "" {
		return errors.New("say which keyturn to watch: --binary")
	}
	o := options{binary: *binary, algs: []string{"ES256"}}
	plain, err := newSite(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.close()) }()
	o.audited = true
	audited, err := newSite(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, audited.close()) }()
	bare, err := measureRaw(ctx, "ES256", *length/2)
	if err != nil {
		return err
	}
	bars := []profile.Bar{{Title: "a bare signature", Micros: map[string]float64{"signature": float64(bare.CPU) / 1e3 / float64(bare.Signatures)}}}
	for _, kind := range []struct {
		title string
		site  *site
		args  []string
	}{
		{"in a batch of 64", plain, []string{"-batch", "64"}},
		{"one a request", plain, nil},
		{"one, with audit log", audited, nil},
	} {
		fmt.Printf("\n%s\n", kind.title)
		bar, err := watch(ctx, kind.site, o.binary, *length, *most, kind.args)
		if err != nil {
			return err
		}
		bar.Title = kind.title
		bars = append(bars, bar)
	}
	return publish(bars, *picture, *doc)
}

// publish writes the picture and the table, where they are wanted.
func publish(bars []profile.Bar, picture, doc string) error {
	if picture != "" {
		f, err := os.Create(picture)
		if err != nil {
			return err
		}
		if err := errors.Join(profile.Draw(f, "Processor time of one ES256 token, in µs", bars), f.Close()); err != nil {
			return err
		}
	}
	if doc == "" {
		return nil
	}
	var s strings.Builder
	s.WriteString("| µs a token |")
	for _, b := range bars {
		s.WriteString(" " + b.Title + " |")
	}
	s.WriteString("\n|---|" + strings.Repeat("---|", len(bars)) + "\n")
	for _, o := range profile.Owners() {
		s.WriteString("| " + o.Title + " |")
		for _, b := range bars {
			fmt.Fprintf(&s, " %.1f |", b.Micros[o.Key])
		}
		s.WriteString("\n")
	}
	s.WriteString("| the load generator, which shares the processors |")
	for _, b := range bars {
		fmt.Fprintf(&s, " %.1f |", b.Load)
	}
	return report.ReplaceBlock(doc, "profile", s.String()+"\n")
}

// watch looks at a daemon while it is asked.
func watch(ctx context.Context, s *site, binary string, length time.Duration, most int, args []string) (profile.Bar, error) {
	type outcome struct {
		res load.Result
		err error
	}
	const lead = time.Second
	asked := make(chan outcome, 1)
	go func() {
		res, err := s.measure(ctx, append(args, "-patient", "-warmup", (lead/2).String(), "-d", (length+lead).String())...)
		asked <- outcome{res, err}
	}()
	time.Sleep(lead)
	stacks, err := profile.Record(ctx, s.cmd.Process.Pid, binary, length)
	out := <-asked
	if err := errors.Join(err, out.err); err != nil {
		return profile.Bar{}, err
	}
	server := out.res.PerToken(out.res.ServerCPU)
	bar := profile.Bar{Micros: map[string]float64{}, Load: out.res.PerToken(out.res.LoadCPU)}
	shares := profile.Shares(stacks)
	for _, o := range profile.Owners() {
		bar.Micros[o.Key] = shares[o.Key] * server
		fmt.Printf("%6.1f µs %5.1f %%  %s\n", bar.Micros[o.Key], 100*shares[o.Key], o.Title)
	}
	fmt.Printf("%6.1f µs           of the daemon, by %d looks; %.1f µs of the load generator; %.0f tokens/s\n", server, len(stacks), bar.Load, out.res.Rate())
	return bar, profile.Functions(os.Stdout, stacks, most)
}
