package keyring

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Facts that the stores of manifests and private halves report. They stand
// here because rotator and signer, which act on them, do not import custody.
var (
	// ErrNoManifest: the issuer has no manifest.
	ErrNoManifest = errors.New("no manifest")
	// ErrConflict: somebody else wrote the manifest first; drop everything and
	// plan again from what is stored.
	ErrConflict = errors.New("the manifest was changed by another replica")
	// ErrNoKey: the store holds no private half of that kid, or no longer.
	ErrNoKey = errors.New("no private half")
	// ErrMismatch: a private half does not belong to the public half that the
	// manifest names. It must never sign.
	ErrMismatch = errors.New("private and public half do not match")
	// ErrUnavailable: the store cannot be reached or cannot serve now (sealed,
	// no leader, rate limited). Trying again later may help.
	ErrUnavailable = errors.New("store unavailable")
	// ErrDenied: the store refused the caller's permission.
	ErrDenied = errors.New("permission denied by the store")
	// ErrSchema: the manifest was written by a newer keyturn: read, never write.
	ErrSchema = errors.New("manifest of a newer schema")
	// ErrNothingDone: an order was not carried out, and nothing of it was written.
	ErrNothingDone = errors.New("nothing was done")
	// ErrCorrupt: the manifest cannot be read.
	ErrCorrupt = errors.New("corrupt manifest")
)

// NotSafeYetError refuses a rotation that would break the promise.
type NotSafeYetError struct {
	Ring string
	// Kid is the key that was asked for, where that is not the standby.
	Kid string
	// SafeAt is when the standby will be safe; zero while a target is behind.
	SafeAt time.Time
	// Waiting names the required targets that have not been read back with it.
	Waiting []string
}

func (e *NotSafeYetError) Error() string {
	switch {
	case len(e.Waiting) > 0:
		return fmt.Sprintf("ring %q: the standby key is not yet published at %s", e.Ring, Quoted(e.Waiting))
	case e.SafeAt.IsZero():
		return fmt.Sprintf("ring %q has no standby key yet", e.Ring)
	}
	key := "the standby key"
	if e.Kid != "" {
		key = "key " + e.Kid
	}
	return fmt.Sprintf("ring %q: consumers may not know %s before %s", e.Ring, key, atLatest(e.SafeAt))
}

// atLatest tells a time from which on something is safe, in whole seconds: never
// one that is too early.
func atLatest(t time.Time) string {
	return t.Add(time.Second - time.Nanosecond).Truncate(time.Second).Format(time.RFC3339)
}

// Quoted writes a list for people: "a", "b".
func Quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = strconv.Quote(s)
	}
	return strings.Join(out, ", ")
}
