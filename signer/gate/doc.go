// Package gate keeps one caller of a sign socket from hurting the others. It is
// mechanism alone: it knows users by their uid, and nothing of HTTP, profiles or
// keys. Conns serve the daemon's other listeners too, TCP included.
//
//	connect ─► Conns ─► request ─► Turns.Enter ─► work ─► Turn.Leave ─► answer
//	            │ so many of one          │ so many at once,      ▲
//	            │ user, so many in all    │ the least served      │
//	            └► a refusal, at once     │ user's first    Limiter.Allow:
//	                                      └► ErrBusy        so many a second
//
// Conns bounds what a user holds (connections, file descriptors, goroutines),
// Turns what he is given of the processors, Limiter what an operator grants him
// of a profile. What they remember of a user vanishes when he is idle.
//
// It imports internal/unixsock (who connected) and golang.org/x/time/rate, and
// nothing else of keyturn.
package gate
