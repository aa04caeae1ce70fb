// Package load asks for tokens as fast, or as evenly, as it is told, and
// measures how long they take.
//
// It shares the processors with the daemon that it measures, so what it costs
// counts against the daemon. Hence one thread, epoll, sockets that do not
// block, requests that were built beforehand, and answers that are looked at
// in place: no goroutine, no allocation and two system calls a request.
//
// Cheap does not mean blind. Each answer has to be whole, a 200, and hold as
// many tokens as were asked for; every Nth token is kept and its signature
// verified with the published keys, by another library than the daemon's, once
// the clock has stopped. Anything else ends the measurement with an error.
package load
