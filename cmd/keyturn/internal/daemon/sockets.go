package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

const codeSocketGone = "socket_gone"

// bound are the Unix sockets that the daemon listens on, as their files were
// then. While it listens no other file gets the number of one's.
type bound struct {
	list []boundSocket

	mu sync.Mutex
	// since is when one was first found gone, by path.
	since map[string]time.Time
}

type boundSocket struct {
	path string
	file fs.FileInfo
}

// add notes a socket that was just bound.
func (b *bound) add(path string) error {
	file, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	b.list = append(b.list, boundSocket{path, file})
	return nil
}

// lookAtSockets looks when nobody asks, for the log.
func (d *daemon) lookAtSockets(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			d.socketAlarms(now)
		}
	}
}

// socketAlarms tell of sockets whose files were removed or replaced: who is
// connected is served, and nobody else gets in. It takes no right of a confined
// process to look.
func (d *daemon) socketAlarms(now time.Time) (out []keyring.Alarm) {
	if d.stopping.Load() {
		return nil // they are taken away
	}
	b := &d.sockets
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.list {
		file, err := os.Lstat(s.path)
		gone := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		if !gone && (err != nil || os.SameFile(file, s.file)) { // what cannot be looked at is not known
			if !b.since[s.path].IsZero() {
				d.log.Info("socket is there again", "path", s.path)
			}
			delete(b.since, s.path)
			continue
		}
		if b.since == nil {
			b.since = map[string]time.Time{}
		}
		if b.since[s.path].IsZero() {
			b.since[s.path] = now
			d.log.Error("socket is gone, and nobody new gets in", "path", s.path)
		}
		what := "was removed"
		if !gone {
			what = "is another file"
		}
		out = append(out, keyring.Alarm{Code: codeSocketGone, Since: b.since[s.path], Message: fmt.Sprintf(
			"%s %s while keyturn listens on it, so nobody new gets in: find out who did that, and restart keyturn", s.path, what)})
	}
	return out
}
