// Package custody holds what every custody shares: the names under which
// manifests and private halves are kept. The custodies themselves are below it.
//
//	custody/local         a sealed directory, one process at a time
//	custody/vaultkv       Vault, KV v2: the default
//	custody/vaultsession  the login to Vault that vaultkv speaks through
//	custody/custodytest   one suite for all of them; vaulttest runs a real Vault
//	custody/internal/half the private half: generated, verified, opaque
//
// A custody keeps two things for each issuer: the manifest, replaced by
// check-and-set only, and the private halves, each written once, never
// replaced, and destroyed so that nothing is left. Nobody outside this folder
// can reach a private half's bytes: what leaves it is a crypto.Signer.
//
//	Create ─► deposit (write-once) ─► Signer … Destroy ─► gone, confirmed by reading
//	Load ─► (plan) ─► Save(version) ─► ErrConflict? Load again
//
// Only this folder uses Vault's client. It imports keyring and
// internal/atomicfile of keyturn, nothing else.
package custody
