package daemon

import (
	"os"
	"runtime/debug"
)

// heapGrowth is how much the heap may grow between two collections, in percent
// of what lives. A token leaves some kilobytes of garbage, of which Go's ECDSA
// makes most, and what lives is a few megabytes: at Go's own 100 percent the
// collector would run a hundred times a second under load and take a tenth of the
// processors. Measured: docs/performance.md.
const heapGrowth = 400

// heapLimit is where the collector works harder again, in bytes: callers who
// send batches of many megabytes make much of the heap alive, and five times that
// would be a lot. It is three times what the daemon needs under load.
const heapLimit = 128 << 20

// growHeap sets heapGrowth and heapLimit, unless the environment says
// otherwise (GOGC, GOMEMLIMIT).
func growHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(heapLimit)
	}
}
