// keyturn keeps JWT signing keys turning over. What it does is in
// cmd/keyturn/internal: cli reads the command line, daemon joins the parts.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/keyturn/keyturn/cmd/keyturn/internal/cli"
	"github.com/keyturn/keyturn/cmd/keyturn/internal/daemon"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/internal/harden"
	"golang.org/x/sys/unix"
)

// version is set by the linker.
var version = "devel"

func main() {
	environ := os.Environ()
	// First of all: no core file and no debugger of the same user ever sees a key.
	if err := harden.Process(); err != nil {
		fmt.Fprintln(os.Stderr, "keyturn:", err)
		os.Exit(1)
	}
	// No dump shows a token either: of every command, since tokens pass through most.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- harden.Dumps(ctx, os.Stderr) }()
	code := execute(ctx, environ)
	cancel()
	<-done // nil: its context has ended
	os.Exit(code)
}

// execute runs the command line on the daemon's parts.
func execute(ctx context.Context, environ []string) int {
	_, notTerminal := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return cli.Execute(ctx, cli.Config{
		Args: os.Args[1:], Program: os.Args[0], Version: version, UID: uint32(os.Getuid()), Environ: environ,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: notTerminal == nil,
		Run:        func(ctx context.Context, o cli.RunOptions) error { return daemon.Run(ctx, daemon.Options(o)) },
		Judge:      daemon.Judge,
		Check:      func(c *configs.Config) (fmt.Stringer, error) { return daemon.Check(c) },
		SetupVault: daemon.SetupVault, ReadAnchors: daemon.ReadAnchors,
	})
}
