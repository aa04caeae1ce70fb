// Package api holds what crosses keyturn's sockets: the JSON of the sign and
// admin verbs, and the problem codes (RFC 9457). It is the contract with every
// client, so it holds no behaviour and imports nothing of keyturn.
//
// Durations are integer seconds, named …_seconds; times are RFC 3339 in UTC.
package api
