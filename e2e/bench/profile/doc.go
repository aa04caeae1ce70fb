// Package profile tells where the processor time of a running daemon goes. The
// daemon has no endpoint for it, and must not get one: it is watched from
// outside, with perf (Debian's linux-perf), which sees the kernel's part too.
//
// perf does not read the symbols of every Go binary, so this package does, from
// the ELF file: the one that is watched must not be stripped, and differs from
// the shipped one in nothing else.
package profile
