// Package daemon joins the parts: it turns a configuration into custody,
// rotator, publisher, signer and admin, opens the sockets, and runs them until
// the context ends. It decides nothing about keys, tokens or requests.
//
//	                    ┌──────────► signer ◄── sign sockets
//	rotator ── Accept ──┼──────────► publisher ──► files, public listener
//	   ▲                └──────────► admin ◄── admin socket, status listener
//	   └── Wake, Confirmed ── publisher
//
// Start-up opens the sockets before the first tick, so that an early caller
// gets an answer ("unavailable, retry"), not a refused connection. Shutdown
// goes the other way: listeners drain first, the Vault token is revoked last.
package daemon
