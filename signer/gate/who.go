package gate

import (
	"net"
	"net/netip"
	"strconv"

	"github.com/keyturn/keyturn/internal/unixsock"
)

// uid is whom the kernel names at the other end of a Unix socket. All of whom
// it does not tell are one user, unixsock.Unknown.
func uid(c net.Conn) string {
	peer, _ := unixsock.PeerOf(c)
	return strconv.FormatUint(uint64(peer.UID), 10)
}

// Address is who is at the other end of a TCP connection, as far as one can
// tell: an IPv4 address, or the /64 of an IPv6 address, which is what one host
// or customer has. All others are one.
func Address(c net.Conn) string {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	network, err := addr.Prefix(64)
	if err != nil {
		return ""
	}
	return network.String()
}
