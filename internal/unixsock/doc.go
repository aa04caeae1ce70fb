// Package unixsock listens on Unix sockets and tells who is calling.
//
// On keyturn's sockets the caller is who the kernel says it is, so two things
// must hold that net.Listen leaves open: nobody but the daemon can put a socket
// at the path or take it away, and the credentials are those of connect(2).
//
//   - Listen refuses a directory in which others could replace the socket, never
//     takes away what is not a dead socket, and opens the socket to its group
//     only when owner and group are right. No process-wide umask is touched.
//   - ConnContext and PeerFrom carry the peer from the connection to a handler.
//
// It is a leaf: any package may import it, and it imports nothing of keyturn.
// It works on Linux, whose SO_PEERCRED and SO_PEERGROUPS it is about.
package unixsock
