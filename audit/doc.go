// Package audit keeps the log of decisions: one JSON line for each, written
// before what was allowed is released. If a line cannot be written, the caller
// fails closed; so an allow in the log may be one that nobody got, and a token
// that somebody has is always in the log.
//
// A Record names the caller, the key and the token's jti; it has no member that
// could hold a token or a private half. The digest of the claims stands in for
// the claims, which may be personal.
//
//	callers ─► encode, each its own ─► queue ─► whoever has the turn seals and writes all of it: one write
//	denials beyond a rate ─► counted ─► one record every few seconds
//	Open, or a write that failed ─► the last record of the file, and what stands behind it ─► the chain goes on
//
// Each line holds the hash of the one before it (chain.go), over restarts and
// rotations. Anchors are heads of the chain that are kept elsewhere. Reading logs
// back, and judging what was done to them, is package audit/verify's: this one
// reads no more of a file than its end. docs/audit.md is the format, and what it
// protects from.
//
// What a line survives: it is in the kernel's hands when Append returns, so the
// death of the process loses nothing. A power failure may lose the last seconds;
// a sync for every token would cost more than signing it. Head, Reopen and
// Close sync.
//
// It imports the leaf atomicfile (whose a file is) and starts no goroutine but timers.
package audit
