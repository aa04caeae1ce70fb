package publisher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockWait is how long another process may hold the lock: it writes two small
// files under it.
const lockWait = 5 * time.Second

// lock takes the flock of a lock file, which stays: removing one lets two
// processes hold two files of the same name.
func lock(ctx context.Context, root *os.Root, name string) (unlock func(), err error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", filepath.Join(root.Name(), name), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s is not a regular file; remove it", filepath.Join(root.Name(), name)), err)
	}
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		// Not the blocking call: nothing could end it.
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = f.Close() }, nil // which gives the lock up
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			return nil, fmt.Errorf("lock %s: %w", filepath.Join(root.Name(), name), err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: another process has held it for %s", filepath.Join(root.Name(), name), lockWait)
		case <-time.After(pause):
		}
	}
}
