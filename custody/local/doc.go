// Package local is the embedded custody: a directory, for one host or a
// try-out. Manifests stand there as they are, for they are public; private
// halves are sealed with AES-256-GCM under a key that stands elsewhere.
//
//	DIR/lock                            flock: one process at a time; holds its pid
//	DIR/seal                            a known text, sealed: tells a wrong key at once
//	DIR/issuers/ISSUER/manifest.json    replaced by rename; its generation is the version
//	DIR/issuers/ISSUER/keys/KID.sealed  written once; bound to issuer and kid
//	DIR/issuers/ISSUER/audit/HOST.json  where that replica's audit log is anchored
//
// The seal protects a copy of the directory (a backup, a stolen disk) that
// comes without the key file, and a sealed half from being passed off as
// another one. It does not protect against who can read both.
//
// The package starts no goroutine, so that it can live in a synctest bubble.
// It imports keyring, custody, custody/internal/half and internal/atomicfile.
package local
