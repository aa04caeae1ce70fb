// Package loopback finds addresses for servers that tests start: a port must be
// known before the process that listens on it runs, and must still be free then.
//
// A port that the kernel gave out and that was closed again is not: the kernel
// gives it to the next connection that anybody makes. So a port is taken from
// below those that it gives out (ip_local_port_range), and its number is reserved
// among all that use this package, in whatever process, until it is released or
// the process ends: by an abstract Unix socket of that name, which belongs to the
// network namespace as the port does, and leaves nothing behind.
//
// It imports the standard library alone, and is imported by tests and their parts.
package loopback
