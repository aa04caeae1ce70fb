package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/internal/atomicfile"
)

// openFile opens a log. Where the path still names current the error is errSame.
func openFile(path string, current *os.File) (*os.File, error) {
	// Reading is for the last byte.
	f, err := openOwn(path, os.O_APPEND)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("directory %q does not exist; create it with mode 0750, owned by uid %d (systemd: LogsDirectory=): %w", filepath.Dir(path), os.Geteuid(), err)
	case err != nil:
		return nil, err
	}
	if err := check(f, current, 0o022, "lets others rewrite it; chmod go-w"); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openOwn opens a file, or creates it with mode 0600. O_NONBLOCK, so that a
// FIFO is refused and not waited for.
func openOwn(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK|flag, 0o600)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: it is a symbolic link; name the file itself", ErrUnsafe)
	}
	return f, err
}

var errSame = errors.New("the path names the file in use")

// check refuses what is no regular file, belongs to a third user, or has one of
// the forbidden mode bits.
func check(f, current *os.File, forbidden fs.FileMode, why string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if current != nil {
		if have, err := current.Stat(); err == nil && os.SameFile(have, info) {
			return errSame
		}
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file (%v)", ErrUnsafe, info.Mode().Type())
	}
	if info.Mode().Perm()&forbidden != 0 {
		return fmt.Errorf("%w: mode %#o %s", ErrUnsafe, info.Mode().Perm(), why)
	}
	if err := atomicfile.CheckOwner(info); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsafe, err)
	}
	return nil
}

// lockSide takes the lock of a log. It is not on the log itself: flock(2) asks
// for no right to write, so whoever may read the log could keep us from
// starting. The side file is never removed: a process that waits at the
// removed one would hold a lock that nobody else sees.
func lockSide(path string) (*os.File, error) {
	f, err := openOwn(path, 0)
	if err != nil {
		return nil, fmt.Errorf("lock file %q: %w", path, err)
	}
	if err := check(f, nil, 0o077, "lets others hold the lock; chmod 600"); err != nil {
		return nil, errors.Join(fmt.Errorf("lock file %q: %w", path, err), f.Close())
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(fmt.Errorf("%w; give each daemon a file of its own", ErrInUse), f.Close())
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q: %w", path, err), f.Close())
	}
	return f, nil
}
