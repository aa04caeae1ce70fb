package harden

import (
	"bytes"
	"regexp"
	"runtime"
)

// maxStacks bounds what Stacks tells: some thousands of goroutines.
const maxStacks = 16 << 20

// arguments are what follows a function's name in a trace: words of memory.
// The name itself may hold parentheses, as methods' do, and generics' dots.
var arguments = regexp.MustCompile(`(?m)^([^\t\n].*)\((?:[0-9a-fx?, {}_]|\.\.\.)*\)$`)

// Stacks is what all goroutines do, for a person. Unlike the dump that the
// runtime prints at SIGQUIT it holds neither the arguments of functions nor the
// processor's registers: in the middle of a signature these are parts of a key.
func Stacks() []byte {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) || len(buf) >= maxStacks {
			return withoutArguments(buf[:n])
		}
		buf = make([]byte, 4*len(buf))
	}
}

func withoutArguments(trace []byte) []byte {
	return arguments.ReplaceAll(bytes.TrimSpace(trace), []byte("$1(...)"))
}
