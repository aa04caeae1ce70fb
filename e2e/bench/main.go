package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("say what: run, quick, profile, table, load or raw")
	}
	switch verb, rest := args[0], args[1:]; verb {
	case "load":
		return loadCommand(rest)
	case "raw":
		return rawCommand(rest)
	case "goclient":
		return goClientCommand(rest)
	case "profile":
		return profileCommand(ctx, rest)
	case "quick":
		return quickCommand(ctx, rest)
	case "table":
		return tableCommand(rest)
	case "run":
		return runCommand(ctx, rest)
	}
	return fmt.Errorf("unknown verb %q: run, quick, profile, table, load or raw", args[0])
}
