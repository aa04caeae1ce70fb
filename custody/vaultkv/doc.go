// Package vaultkv is the default custody: manifests and private halves in a
// KV v2 mount of HashiCorp Vault.
//
//	MOUNT/issuers/ISSUER/manifest   field manifest: the document, as one string
//	MOUNT/issuers/ISSUER/keys/KID   field private_key: PKCS#8 PEM, written once
//	MOUNT/issuers/ISSUER/audit/HOST field heads: where that replica's audit log is anchored
//
// The manifest is one string because Vault does not preserve JSON: it sorts
// members and changes numbers. KV's version of it is the version for
// check-and-set. Every write says which version it replaces, 0 for none; two
// writers never both win, and a half is never replaced.
//
// A write whose reply was lost may have been applied, now or a second later.
// So it is repeated with the same version until the answer is definite, and
// then what is stored is read and compared with what was written:
//
//	          200 ──────────────────────────────────────────► written
//	PUT cas=n ── 400 at the first try ──────────────────────► conflict
//	          ── no definite answer ─► same PUT again … 400 ─► read: ours? written : conflict
//
// It imports keyring, custody, custody/internal/half and custody/vaultsession.
package vaultkv
