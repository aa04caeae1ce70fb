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
//	a caller whom some profile allows → body and strict JSON → profile (forbidden,
//	the same as before the body) → subject, audience, ttl, claims → key and lease → sign → lease again → audit →
//	lease again → release
//
// Keys: the halves of the active key and of standbys are loaded ahead of their
// turn, in Run's goroutine. While a new active key is not loaded yet, the previous one signs
// on within its sign_until. A half is dropped from memory when its key is
// closed, revoked or past its sign_until. One that is missing or wrong is told to
// the rotator (Damaged, Wake), which goes on with another key.
//
// It may import keyring, token, audit and api, and of the leaves strictjson and
// unixsock. What it needs of others stands here as an interface: KeySource, Recorder.
package signer
