// Package vaultsession keeps one login to Vault alive: it logs in, renews,
// logs in again when the token has ended, and revokes what it was given when
// it stops. Everything that speaks to Vault does so through Session.Do, which
// knows what an answer means.
//
//	         login refused: wait 10 s and longer, never hammer
//	           ┌──┐
//	           ▼  │                 renew at 2/3 of the life
//	Run ─► log in ──► live ◄───────────────────┐
//	           ▲        ├──────────────────────┘
//	           │        │ no longer renewable, expired,
//	           └────────┘ or `invalid token` (Invalidate)
//
// Only the goroutine in Run logs in, so there is one login in flight however
// many callers meet a dead token; they wait for it in Ready.
//
// Vault's client reads a dozen environment variables on its own, one of which
// turns certificate checks off. Nothing of that gets in here: what Config does
// not say does not count.
//
// It imports keyring, for its errors, and Vault's client.
package vaultsession
