// Package signer answers the sign sockets: it judges who asks for what, and
// signs tokens with keys that it never hands out.
//
//	Accept(snapshot) ─┐                        ┌─► state (one atomic pointer, immutable)
//	SetProfiles ──────┼─► under mu: rebuild ───┤        ▲
//	Run: loads keys ──┘                        └────────┼── Handler reads it once a request
//	     from KeySource                                 └── Ready and Alarms too
//
// A request passes these steps, and the first that fails answers it:
//
//	a caller whom some profile allows → body → the caller's turn (package gate) → strict JSON → profile
//	(forbidden, the same as before the body) → rate → subject, audience, ttl, claims → condition → key and
//	lease → sign → end of the turn → lease again → audit → lease again → release
//
// The memory of a request is a desk, which is used again. Requests of the
// usual form are read by a reader of their own (scan), all others by strictjson.
//
// Keys: the halves of the active key and of standbys are loaded ahead of their
// turn, in Run's goroutine. While a new active key is not loaded yet, the previous one signs
// on within its sign_until. A half is dropped from memory when its key is
// closed, revoked or past its sign_until. One that is missing or wrong is told to
// the rotator (Damaged, Wake), which goes on with another key.
//
// It may import keyring, token, audit and api, and of the leaves strictjson and
// unixsock. Its own parts are condition (CEL) and gate (limits and fairness). What it needs of others stands here as an interface: KeySource, Recorder.
package signer
