// Package publisher brings an issuer's key set to where consumers find it, and
// finds out what they find: it writes files, serves HTTP, and reads each
// target back as a consumer would. No key signs before that has shown it.
//
// It imports keyring, which renders the set, and the leaves atomicfile and
// strictjson. It knows no rotator: snapshots come in by Accept, what was read
// back or found is pulled by Confirmed, Foreign and Published, and Wake, a func,
// is the one arrow back.
//
//	Accept ─► latest snapshot (atomic) ─► one goroutine a target:
//	            file     lock, compare, side file, rename, read the file
//	            http     render, swap the page, GET through the real listener
//	            confirm  GET the URL
//	                         └─► Observation ─► Confirmed, Wake
//
// What a target holds ends at serve_until of the snapshot that was last read
// back there, whatever happens to this process: past it the endpoint answers
// 503, and the file is taken away. A file's serve_until is kept in a side file,
// so that a restart honours it before any snapshot arrives.
//
// # The side file
//
// Beside FILE stand FILE.keyturn, which says what FILE holds, and
// FILE.keyturn.lock, under whose flock everything happens. Two files cannot be
// replaced in one step, so the side file lists every set that FILE may hold,
// each by its digest: at most the one that is there and the one that is about
// to be. Whatever a crash leaves, the digest of FILE tells which of them it is;
// a FILE that matches none was changed by somebody else.
//
// # A set of somebody else
//
// A FILE without a side file of this issuer and lineage is foreign, and nobody
// touches it. Where the manifest lets the target take it over (adopt_until),
// Foreign reports its keys, the manifest adopts them, and only a snapshot that
// names every one of them replaces the file.
//
// # Clocks
//
// Keys leave a set by the earlier of a host's two clocks, what is served ends by
// the later one, and while the wall clock is in doubt no file is taken away.
package publisher
