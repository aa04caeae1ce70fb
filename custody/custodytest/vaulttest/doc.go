// Package vaulttest runs a real Vault server for tests: one node, one unseal
// key, Raft storage in a directory that goes with the test, so that it can be
// sealed, stopped, killed, started again with all it knew, saved and restored.
// Proxy stands between a client and the server and loses requests or replies.
// Cluster is three servers, for what happens when their leader goes.
//
// The binary is what VAULT_BIN names, else bin/vault of a directory above the
// working one (`make vault` builds it), else vault or bao on the PATH. Where
// none runs, the test fails: a test of a real part must not skip itself.
//
// It imports Vault's client, the leaf loopback and the standard library, and is imported by tests
// alone.
package vaulttest
