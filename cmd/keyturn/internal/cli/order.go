package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/api"
	"github.com/spf13/cobra"
)

// orderFlags are those of every verb that changes a manifest.
type orderFlags struct {
	dryRun, yes, force bool
	reason             string
	out                format
}

func (f *orderFlags) add(cmd *cobra.Command, force string) {
	f.out = formatTable
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "only tell what would happen")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask; required without a terminal")
	flags.BoolVar(&f.force, "force", false, force)
	flags.StringVar(&f.reason, "reason", "", "why, for the audit log")
	flags.VarP(&f.out, "output", "o", "how to print it")
}

// order is what such a verb asks for, and how its answer is told. T is the answer.
type order[T any] struct {
	path string
	// try asks for a dry run, do for the thing itself.
	try, do any
	// verb is what --yes is for, question what is asked on a terminal.
	verb, question string
	print          func(io.Writer, T) error
}

// carryOut shows what an order would do, asks, and carries it out.
func carryOut[T any](ctx context.Context, cfg *Config, c client, f *orderFlags, o order[T]) error {
	if !f.dryRun && !f.yes && !cfg.Terminal {
		return usagef("nobody is there to be asked: add --yes to %s, or --dry-run to see what would happen", o.verb)
	}
	if !f.yes || f.dryRun {
		var would T
		if err := c.post(ctx, o.path, o.try, &would); err != nil {
			return err
		}
		if f.dryRun {
			return f.out.print(cfg.Stdout, would, func(w io.Writer) error { return o.print(w, would) })
		}
		if err := o.print(cfg.Stderr, would); err != nil {
			return err
		}
		if ok, err := cfg.confirm(o.question); err != nil || !ok {
			return err
		}
	}
	var done T
	if err := c.post(ctx, o.path, o.do, &done); err != nil {
		return err
	}
	return f.out.print(cfg.Stdout, done, func(w io.Writer) error { return o.print(w, done) })
}

// isProblem reports whether the daemon refused with a code.
func isProblem(err error, code api.Code) bool {
	var p *api.Problem
	return errors.As(err, &p) && p.Code == code
}

// confirm asks and takes y or yes for yes. A no is not an error of anybody's,
// but nothing was done either, so it is one of the exit code's.
func (c *Config) confirm(question string) (bool, error) {
	fmt.Fprintf(c.Stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(io.LimitReader(c.Stdin, 1024)).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(c.Stderr)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, fmt.Errorf("nothing was done")
}
