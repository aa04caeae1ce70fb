// Package deploytest holds deploy/ and the Dockerfile against the program: the
// command lines in them are parsed by the real one, their configurations are
// loaded, the image's build line is run in what its context would hold, and the
// Vault policies are those that the code derives. It is only tests; it stands
// under cmd/keyturn because the command line is internal to it.
package deploytest
