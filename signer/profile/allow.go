package profile

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/internal/unixsock"
)

// Caller is who asks, through which socket.
type Caller struct {
	// Socket is the configured name of the sign socket.
	Socket string
	Peer   unixsock.Peer
	// Known: the kernel said who it is. Else no profile allows it.
	Known bool
}

func checkRules(rules []Rule) []error {
	var errs []error
	if len(rules) == 0 {
		errs = append(errs, errors.New("allow: it is empty, so nobody could use the profile; name sockets, uids or gids"))
	}
	for i, r := range rules {
		if r.Socket == "" && r.UID == nil && r.GID == nil {
			errs = append(errs, fmt.Errorf("allow item %d: it is empty and would match everybody; name a socket, uid or gid", i+1))
		}
		if r.UID != nil && isNobody(*r.UID) {
			errs = append(errs, fmt.Errorf("allow item %d: uid %d may stand for anybody of another user namespace, so it never matches", i+1, *r.UID))
		}
		if r.GID != nil && isNobody(*r.GID) {
			errs = append(errs, fmt.Errorf("allow item %d: gid %d may stand for any group of another user namespace, so it never matches", i+1, *r.GID))
		}
	}
	return errs
}

func isNobody(id uint32) bool { return id == unixsock.Overflow || id == unixsock.Unknown }

// Allows reports whether one rule matches the caller. A caller without an
// identity, or with that of a foreign user namespace, matches none: not even
// one that names its socket only.
func (p *Profile) Allows(c Caller) bool {
	if !c.Known || isNobody(c.Peer.UID) {
		return false
	}
	return slices.ContainsFunc(p.Allow, func(r Rule) bool {
		return (r.Socket == "" || r.Socket == c.Socket) &&
			(r.UID == nil || c.Peer.HasUID(*r.UID)) &&
			(r.GID == nil || c.Peer.HasGID(*r.GID))
	})
}
