// Package socket serves HTTP on a Unix socket whose requests are short and many,
// and ends without losing one. It knows nothing of keys, profiles or tokens.
//
//	Accept ─► conn: deadlines and the look-out for a hang-up wait until they are needed
//	ctx ends ─► drain: the path goes, who had connected is accepted
//	            ─► hush: idle connections are shut for reading, what they sent is answered
//	            ─► Shutdown, within DrainTime
//
// net/http is made for requests that take milliseconds. Of one that takes 30 µs
// its care for the connection is a good part: what conn keeps from the kernel is
// that part, and nothing that net/http promises its handlers is lost.
//
// It may import internal/unixsock (who connected) and nothing else of keyturn.
package socket
