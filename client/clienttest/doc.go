// Package clienttest is a daemon for tests of programs that get their tokens
// with package client. It answers on a real socket with tokens of a throw-away
// key, in the shape that keyturn's have, and serves the key set and the
// discovery document by which the code under test verifies them.
//
//	func TestOrders(t *testing.T) {
//		kt := clienttest.New(t, clienttest.Config{})
//		app := NewApp(kt.Client(), kt.Issuer())
//		…
//		kt.Rotate()                       // a new key signs, tokens of the old one verify
//		kt.Fail(api.SigningLapsed)        // what the app does while Vault is away
//		kt.Down()                         // … while the daemon is
//		kt.Shift(-time.Hour)              // … with tokens that have expired
//	}
//
// It judges requests as the daemon does, with the same codes, by the profiles
// that the test gives it, or takes any. What it does not have: callers (every
// profile is the test's own), rate limits, conditions, audit, schedules.
//
// It may import api, keyring, token, client and the leaves, and belongs into
// tests alone: its private keys are in memory and protect nothing.
package clienttest
