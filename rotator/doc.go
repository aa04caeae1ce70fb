// Package rotator is the reconcile loop: it loads an issuer's manifest, asks
// keyring.Plan what is next, saves it by check-and-set and hands the new
// snapshot on. It holds no rule of its own about a key's life; those are keyring's.
//
//	deadline · sync tick · Wake · command
//	        │
//	        ▼
//	      Load ──► keyring.Plan ──► deposit new halves ──► Save (CAS) ──► Accept
//	        ▲                                                │ conflict     │
//	        └────────── drop everything, plan again ◄────────┘              ▼
//	                                               destroy what a stored snapshot shows closed
//
// One loop an issuer, and one goroutine a loop: commands from the admin socket
// run on it too, so that a process has one writer. Start-up is one tick; the
// path of recovery is the normal path.
//
// It is the only user of robfig/cron, and of that only the parser and Next:
// what is due is computed from the manifest, so a restart forgets nothing.
// It imports keyring; the interfaces that it needs of custody and publisher
// stand here.
package rotator
