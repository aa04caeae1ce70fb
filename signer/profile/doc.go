// Package profile says who may sign what: a profile of the configuration,
// compiled once and asked about each request. It is mechanism and rules without
// keys, clocks, logs or I/O; the same request gets the same answer tomorrow.
//
//	Config ─► Compile (at load): all faults at once, each with its field ─► Set of Profiles
//
//	a request: Allows(caller) ─► Judge: subject, audience, ttl, claims ─► Grant ─► Meets: the condition
//
// Names of claims. keyturn alone writes iss, exp and their like, so nobody may
// give a name that is one of them or that some reader takes for one: readers
// fold case (encoding/json), end a name at a NUL, or show what does not print in
// another order. Such names are refused in a configuration and in requests. The
// same holds of every name that the profile itself is about, by its lists, its typ
// or its condition, and within objects of the names that the condition looks for:
// else a condition on role judges {"Role":"root"} to be without one
// (docs/decisions, names of claims).
//
// A profile of access tokens is held against RFC 9068 as well.
//
// It may import signer/request (what was asked), signer/condition (the `when`),
// api and keyring, and of the leaves strictjson and unixsock.
package profile
