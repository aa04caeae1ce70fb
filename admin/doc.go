// Package admin is what operators see and may do: the admin socket, the probes,
// the metrics and a status page.
//
//	admin socket     GET /v1/issuers · POST /v1/rings/{ring}/rotate, …/revoke
//	                 POST /v1/keys/{kid}/revoke · /v1/revoke · /v1/issuers/{issuer}/accept
//	status listener  /livez · /readyz · /readyz/signer · /metrics · / (a page)
//
// It decides nothing about keys. It shows the snapshot that was last accepted,
// joined with what rotator, publisher and signer say of themselves, and asks the
// rotator to carry out what an operator orders. What that does to consumers is
// keyring's to say; here it is put into words. The parts come as funcs in Config,
// joined by cmd: admin imports keyring, audit and api, and of the rest only leaves.
//
// Who may use the admin socket is judged before a request is read, and an
// operator's step is in the audit log before it is taken.
//
// It is the only user of prometheus/client_golang. What follows from snapshots
// is computed at each scrape, so no series outlives its key; what happens is
// counted by the methods of Metrics, with label values that callers of the sign
// socket cannot invent.
package admin
