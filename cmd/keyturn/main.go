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
	_, notTerminal := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	os.Exit(cli.Execute(context.Background(), cli.Config{
		Args: os.Args[1:], Program: os.Args[0], Version: version, UID: uint32(os.Getuid()), Environ: environ,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: notTerminal == nil,
		Run:        func(ctx context.Context, o cli.RunOptions) error { return daemon.Run(ctx, daemon.Options(o)) },
		Judge:      daemon.Judge,
		Check:      func(c *configs.Config) (fmt.Stringer, error) { return daemon.Check(c) },
		SetupVault: daemon.SetupVault, ReadAnchors: daemon.ReadAnchors,
	}))
}
