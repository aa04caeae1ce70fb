package harden

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Dumps answers, until ctx ends, the signals at which Go's runtime would print
// its dump and end the process. It does the same, with the same exit code, but
// what it prints is Stacks: the runtime's dump has registers and arguments in
// it. A fault of this process itself, which no signal from outside is, stays
// the runtime's; there every goroutine's arguments are told, and none of them
// that handles a key has more of it than a pointer.
func Dumps(ctx context.Context, w io.Writer) error {
	fatal := make(chan os.Signal, 1)
	signal.Notify(fatal, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGILL, syscall.SIGTRAP,
		syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS)
	defer signal.Stop(fatal)
	select {
	case <-ctx.Done():
	case sig := <-fatal:
		fmt.Fprintf(w, "keyturn: signal: %v\n\n%s\n", sig, Stacks())
		os.Exit(2) // no drain: who sends this wants an end, maybe since there is none
	}
	return nil
}
