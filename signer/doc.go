// Package signer answers the sign sockets: it judges who asks for what, and
// signs tokens with keys that it never hands out.
//
//	                     ┌─ socket   HTTP on a Unix socket, and its end
//	                     ├─ gate     limits and fairness among callers
//	signer (this one) ───┼─ request  the reading of what was asked ◄─┐
//	                     ├─ profile  who may sign what ──────────────┴─► condition (CEL)
//	                     └─ keys     the private halves, and until when each may sign
//
// This package puts them together: it is the handlers, the order of the steps,
// and the records. A request passes these, and the first that fails answers it:
//
//	a caller whom some profile allows → body → the caller's turn → strict JSON → profile
//	(forbidden, the same as before the body) → rate → subject, audience, ttl, claims → condition → key and
//	lease → sign → end of the turn → key and lease again → audit → key and lease again → release
//
// Again means by what this process has accepted meanwhile: a token of a key that
// was revoked while its record was written stays here.
//
// The memory of a request is a desk, which is used again.
//
// It may import its parts, keyring, token, audit and api, and of the leaves
// unixsock. What it needs of others is an interface: Recorder here, and
// keys.Source. The parts do not import it, and of each other only what the
// picture shows (house_test.go).
package signer
