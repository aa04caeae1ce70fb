// Package e2e tests keyturn from outside: the built binary, real sockets,
// files and processes, a real Vault server, and the libraries with which
// services verify tokens (npm jose, Debian's PyJWT, coreos/go-oidc).
//
// It is a module of its own so that what only tests need stays out of
// keyturn's go.mod. No test skips itself: a part that is missing is a failure.
package e2e
