// Package keys holds the private halves that this process signs with, and says
// of each moment which key may sign for a ring.
//
//	Accept(snapshot) ─┐                        ┌─► Views (one atomic pointer, immutable)
//	                  ├─► under mu: rebuild ───┤        ▲
//	Run: loads halves ┘                        └────────┼── a request: Pick, by one reading; At, by the newest
//	     from Source                                    └── Alarms too
//
// The halves of the active key and of standbys are loaded ahead of their turn,
// in Run's goroutine. While a new active key is not loaded yet, the previous one
// signs on within its sign_until. A half is dropped from memory when its key is
// closed, revoked or past its sign_until. One that is missing or wrong is told
// to the rotator (Damaged, Wake), which goes on with another key.
//
// A half comes in as an opaque crypto.Signer and never leaves: what is handed
// out signs and prints as "[redacted]" (token.Signer).
//
// It may import keyring, token and api. What it needs of others stands here as
// an interface: Source.
package keys
