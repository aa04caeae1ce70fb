// Package cli is keyturn's command line: it reads flags, calls package daemon
// or talks to a running daemon over its sockets, and prints. It holds no rule
// about keys or tokens. It stands under cmd because only the binary uses it,
// and may import everything.
//
// A command returns an error and never exits; Execute prints it and turns it
// into the exit code:
//
//	0   fine
//	1   refused, or failed here
//	2   a remote part is unreachable or cannot serve now: retry
//	64  usage: the command line itself is wrong
package cli
