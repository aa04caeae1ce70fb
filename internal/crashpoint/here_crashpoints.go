//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

const variable = "KEYTURN_CRASH_AT"

// Here marks a place at which a test may crash the process. Where the
// environment names it, it does not return.
func Here(name string) {
	if c := chosen(); c.name == name && c.left.Add(-1) == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // one's own process: never refused
		select {}                                      // not one step further, however late the signal comes
	}
}

// choice is the place to crash at, and how often it is still to be passed.
type choice struct {
	name string
	left atomic.Int64
}

// chosen belongs to the process, as the environment does. It panics where the
// variable cannot be read: a test that never crashes proves nothing.
var chosen = sync.OnceValue(func() *choice {
	name, times, counted := strings.Cut(os.Getenv(variable), ":")
	n := 1
	if counted {
		var err error
		if n, err = strconv.Atoi(times); err != nil || n < 1 {
			panic(fmt.Sprintf("%s=%s:%s: write NAME or NAME:N, N from 1 on", variable, name, times))
		}
	}
	c := &choice{name: name}
	c.left.Store(int64(n))
	return c
})
