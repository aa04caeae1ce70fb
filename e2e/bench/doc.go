// Command bench measures keyturn: `make bench` runs it, and docs/performance.md
// tells what its lines mean.
//
//	bench run    all of it, some minutes; prints `bench NAME VALUE UNIT` and `ratio NAME VALUE`
//	bench quick  raw, socket and batch of ES256, for work on the hot path; compares binaries
//	bench profile  where the time of a token goes, by perf; draws docs/performance.svg
//	bench table    what a run printed, as the table of docs/performance.md
//	bench load   the load generator alone, on a daemon that runs already
//	bench raw    signatures alone, on all processors
//
// The load and the bare signatures are processes of their own (this binary
// again), so that what they cost is told apart and nothing of theirs is shared
// with the daemon. The daemon is the binary that users run.
package main
