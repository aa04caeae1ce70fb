// Package crashpoint ends the process at a named place of the code, as kill -9
// would, so that a test can look at what a crash there leaves and at how the
// next process goes on from it. It imports the standard library only; any
// package but the pure core may import it.
//
// A place is one call, Here("destroy.destroyed"). Which one is meant says the
// environment:
//
//	KEYTURN_CRASH_AT=NAME      the first time that the process comes to NAME
//	KEYTURN_CRASH_AT=NAME:N    the N-th time
//
// It is no part of the product. A daemon that an environment variable can kill
// at its worst moment is a gift to whoever may set one, and a typo would look
// like a fault of the machine. So the variable is read only in a build with the
// tag crashpoints, which the tests make for themselves; in every other build
// Here is empty and inlined away, and a test searches that binary for the
// variable's name.
package crashpoint
