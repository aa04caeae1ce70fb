package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
)

// heapGrowth is how much the heap may grow between two collections, in percent
// of what lives. A token leaves some kilobytes of garbage, of which Go's ECDSA
// makes most, and what lives is a few megabytes: at Go's own 100 percent the
// collector would run a hundred times a second under load and take a tenth of the
// processors. Measured: docs/performance.md.
const heapGrowth = 300

// heapLimit is where the collector works harder again, in bytes: callers who
// send batches of many megabytes make much of the heap alive, and four times that
// would be a lot. It is three times what the daemon needs under load.
const heapLimit = 128 << 20

// spareThreads is how many threads run Go code beside one for each processor. On
// a host that the daemon shares with its callers the kernel takes a thread off
// its processor for milliseconds; with a spare one the work that it held goes on.
// Measured on two processors: a fifth more tokens a second, and beside a flood
// the slowest hundredth of another user's requests takes a third of the time.
const spareThreads = 1

// tune sets the above, unless the environment says otherwise (GOGC, GOMEMLIMIT,
// GOMAXPROCS). It comes before the parts are built: some go by the number of threads.
func tune() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit)
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.SetDefaultGOMAXPROCS() // what the host, or a container's limit, gives
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + spareThreads)
	}
}
