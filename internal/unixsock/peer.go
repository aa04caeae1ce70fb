package unixsock

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// Overflow is the uid and gid that the kernel shows for one that this
	// process's user namespace does not map (user_namespaces(7)). It may stand
	// for anybody, so it matches nobody.
	Overflow uint32 = 65534
	// Unknown is the uid and gid of a caller whose credentials are not known:
	// (uid_t)-1, as the kernel has it.
	Unknown uint32 = 1<<32 - 1
)

// Peer is who connected, as the kernel knew it at connect(2). A process that
// was handed the connection later speaks with the rights of this one.
type Peer struct {
	// PID is for the log only: it may be another process by now, and is 0 for
	// one of a foreign PID namespace.
	PID int32
	UID uint32
	// GID is the primary group, Groups the supplementary ones.
	GID    uint32
	Groups []uint32
}

// HasUID reports whether the caller is that user. The overflow uid and an
// unknown one are nobody.
func (p Peer) HasUID(uid uint32) bool { return named(uid) && p.UID == uid }

// HasGID reports whether the caller is in that group, primary or
// supplementary. The overflow gid and an unknown one are no group.
func (p Peer) HasGID(gid uint32) bool {
	return named(gid) && (p.GID == gid || slices.Contains(p.Groups, gid))
}

func named(id uint32) bool { return id != Overflow && id != Unknown }

// PeerOf asks the kernel who is at the other end of a Unix connection.
func PeerOf(conn net.Conn) (Peer, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return unknown(), fmt.Errorf("peer of a %T: not a socket", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return unknown(), fmt.Errorf("peer: %w", err)
	}
	var p Peer
	var askErr error
	err = raw.Control(func(fd uintptr) { p, askErr = peerOf(int(fd)) })
	if err := errors.Join(err, askErr); err != nil {
		return unknown(), fmt.Errorf("peer: %w", err)
	}
	return p, nil
}

func peerOf(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, fmt.Errorf("SO_PEERCRED: %w", err)
	}
	if cred.Uid == Unknown { // a socket of another family, or one that is not connected
		return Peer{}, errors.New("SO_PEERCRED: no credentials")
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Peer{}, fmt.Errorf("SO_PEERGROUPS: %w", err)
	}
	return Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid, Groups: groups}, nil
}

// peerGroups is getsockopt(SO_PEERGROUPS), which x/sys does not wrap: it fills
// an array of gid_t, and where that is too short it says ERANGE and the length.
func peerGroups(fd int) ([]uint32, error) {
	groups := make([]uint32, 16)
	for range 2 { // the groups of a connection do not change, so twice is enough
		size := uint32(len(groups) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return slices.Clip(groups[:size/4]), nil
		case unix.ERANGE:
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
	return nil, unix.ERANGE
}

type peerKey struct{}

// ConnContext puts the peer of a connection into the context of its requests:
// it is the ConnContext of an http.Server. Where the kernel does not tell, the
// context holds no peer.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	p, err := PeerOf(conn)
	if err != nil {
		return ctx // PeerFrom says so, and the request is refused there
	}
	return WithPeer(ctx, p)
}

// WithPeer is a context whose PeerFrom is p.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom is who sent the request. Where that is not known it reports false,
// and the peer is one that matches no rule.
func PeerFrom(ctx context.Context) (Peer, bool) {
	if p, ok := ctx.Value(peerKey{}).(Peer); ok {
		return p, true
	}
	return unknown(), false
}

func unknown() Peer { return Peer{UID: Unknown, GID: Unknown} }
