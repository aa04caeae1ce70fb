// Package keyring is keyturn's pure core: what the manifest holds, what follows
// from it, and what may happen next. It has no context, logger, clock,
// goroutine or I/O, and imports the standard library only, so that every rule
// of the promise can be tested by tables and by random walks.
//
//	          generated, deposited, committed       due and proven for lead
//	(nothing) ──────────────────────────► standby ──────────────────────► active
//	                                                                        │ its successor became active
//	      withdrawn ◄───────────── closed ◄───────────────────────────── retired
//	                 its tail            sign_until + E, by CAS;
//	                 has passed          then the half is destroyed
//
// State is facts, not flags: a Key stores the times at which things happened
// to it, and State derives the rest.
//
//   - Snapshot is one immutable value of the manifest: the configuration in
//     force, the lease, the keys. Never change one that others may hold; Clone it.
//   - Timing derives every time from the configuration, Check refuses the ones
//     that would break the promise and shows the arithmetic.
//   - Plan turns a snapshot and what was observed into the next snapshot and
//     the work to do.
//   - Set renders the published key set of a snapshot at an instant.
package keyring
