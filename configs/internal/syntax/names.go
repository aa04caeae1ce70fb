package syntax

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	name    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	replica = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	mount   = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
	mode    = regexp.MustCompile(`^0?[0-7]{3}$`)
	group   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*\$?$`)
	// content is PEM and whatever else has lines, a token of Vault's, a UUID (role
	// and secret ids), 32 bytes in base64 or hexadecimal.
	content = regexp.MustCompile(`\n|^-----BEGIN|^(hv[sbr]\.[A-Za-z0-9_-]{20,}|[sbr]\.[A-Za-z0-9]{24}|` +
		`[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64})$`)
)

// maxSocketPath is what sun_path holds on Linux, without its NUL (unix(7)).
const maxSocketPath = 107

// Name checks the name of an issuer, a ring, a profile, a target or a socket.
func Name(s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("%q: names are 1 to 63 characters of a-z, 0-9 and -, without - at either end (they become segments of Vault's paths)", s)
	}
	return nil
}

// Replica checks the name of a daemon. Names of hosts are.
func Replica(s string) error {
	if !replica.MatchString(s) {
		return fmt.Errorf("%q: write 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or a digit (it becomes a segment of Vault's paths)", s)
	}
	return nil
}

// Mount checks the path of a mount in Vault.
func Mount(s string) error {
	if !mount.MatchString(s) || slices.ContainsFunc(strings.Split(s, "/"), func(s string) bool { return s == "." || s == ".." }) {
		return fmt.Errorf("%q is no mount path: write it as Vault lists it, without a slash at either end", s)
	}
	return nil
}

// SocketPath checks that a path is short enough for a Unix socket.
func SocketPath(s string) error {
	if len(s) > maxSocketPath {
		return fmt.Errorf("%s is %d bytes long, and a socket's path holds %d: choose a shorter one", s, len(s), maxSocketPath)
	}
	return nil
}

// SocketMode checks the mode of a Unix socket.
func SocketMode(s string) error {
	bits := FileMode(s)
	switch {
	case !mode.MatchString(s):
		return fmt.Errorf(`%q is no mode: write three octal digits in quotes, such as "0660"`, s)
	case bits&^0o666 != 0:
		return fmt.Errorf("%q: a socket has read and write bits only; 0660 lets its group connect", s)
	case bits&0o600 != 0o600:
		return fmt.Errorf(`%q keeps the daemon's own user out: begin with 06`, s)
	}
	return nil
}

// FileMode reads an octal mode; 0600 where it is none.
func FileMode(s string) fs.FileMode {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0o600
	}
	return fs.FileMode(n)
}

// Group checks the name or the number of a group. Whether it exists is for the
// host to tell.
func Group(s string) error {
	if !group.MatchString(s) {
		return fmt.Errorf("%q is no name of a group", s)
	}
	return nil
}

// IsContent reports that a text, where the name of a file belongs, is rather what
// should be in that file. Shown as a name, it would be shown to everybody.
func IsContent(s string) bool { return content.MatchString(s) }
