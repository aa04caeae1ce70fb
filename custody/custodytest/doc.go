// Package custodytest is the suite that every custody passes: what the rotator
// and the signer rely on, in the words of design.md §4, tried on the real
// store. A custody's own tests add what only it can suffer.
//
// It imports keyring, custody and custody/internal/half, the standard library and
// go-cmp, and is imported by tests alone.
package custodytest
