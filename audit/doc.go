// Package audit keeps the log of decisions: one JSON line for each, written
// before what was allowed is released. If a line cannot be written, the caller
// fails closed; so an allow in the log may be one that nobody got, and a token
// that somebody has is always in the log.
//
// A Record names the caller, the key and the token's jti; it has no member that
// could hold a token or a private half. The digest of the claims stands in for
// the claims, which may be personal.
//
// What a line survives: it is in the kernel's hands when Append returns, so the
// death of the process loses nothing. A power failure may lose the last seconds;
// a sync for every token would cost more than signing it. Close and Reopen sync.
//
// It imports nothing of keyturn. Lines are opaque to Log, so that they can be
// chained later without another way of writing them.
package audit
