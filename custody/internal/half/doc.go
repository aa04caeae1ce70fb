// Package half is the private half of a key pair: generated, verified against
// its own public half before anything is kept, and opaque from then on.
//
// A Key is a crypto.Signer that signs with the one algorithm it was made for
// and has no verb that exports. Its secret is held by closures, so that a
// printer which walks through a value by reflection finds the address of a
// function; through fmt, slog and encoding/json it is "[redacted]".
//
// The package is internal to custody, so that Encode, which does export, can
// be called by those alone who deposit a half. It imports keyring and the
// standard library.
package half
