package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("audit log closed")
	// ErrInUse: another process writes this file. Each needs one of its own.
	ErrInUse = errors.New("another process writes this audit log")
	// ErrUnsafe: what stands at the path is not a file that only we can write.
	ErrUnsafe = errors.New("unsafe audit log")
)

// Log appends records to a file. Its methods may be called concurrently.
type Log struct {
	path string
	// turn holds one token: whoever has it owns the fields below. It is a
	// channel, so that waiting behind a disk that hangs ends with the context.
	turn chan struct{}

	file *os.File // nil when closed
	// side holds the lock, as long as the log is open.
	side *os.File
	// torn: the file ends in a line without its newline.
	torn bool
}

// Open opens the log for appending and creates it with mode 0600. The
// directory must exist. A symbolic link, anything but a regular file, and a
// file that others can write are refused with ErrUnsafe, one that another
// process writes with ErrInUse. The lock is a side file, the path with ".lock"
// behind it, which stays when the log is closed.
func Open(path string) (*Log, error) {
	l := &Log{path: path, turn: make(chan struct{}, 1)}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open audit log %q: %w", path, err)
	}
	return l, nil
}

func (l *Log) open() (err error) {
	if l.file, err = openFile(l.path, nil); err != nil {
		return err
	}
	if l.side, err = lockSide(l.path + ".lock"); err != nil {
		return errors.Join(err, l.file.Close())
	}
	// Only now: until the lock was ours, another process may have written.
	if l.torn, err = endsTorn(l.file); err != nil {
		return errors.Join(err, l.file.Close(), l.side.Close())
	}
	return nil
}

// Append writes one record; when it returns nil the record is in the file. On
// any error the caller must not release what the record allows. The context
// bounds the wait for other writers: a write that has begun is finished, and
// one that can begin at once is made even where the context has ended, since
// a decision was taken.
func (l *Log) Append(ctx context.Context, r Record) error {
	line, err := r.line()
	if err != nil {
		return err
	}
	if err := l.lock(ctx); err != nil {
		return fmt.Errorf("append to audit log %q: %w", l.path, err)
	}
	defer l.unlock()
	if l.file == nil {
		return ErrClosed
	}
	if err := l.write(line); err != nil {
		return fmt.Errorf("append to audit log: %w", err)
	}
	return nil
}

// write appends one line. What a short write leaves (a full disk, a limit on
// the file's size) is taken back, so that the file holds whole lines only; where
// that is not possible either, the next line begins with a newline and ends
// the damage there. A crash in between is found by the next Open.
func (l *Log) write(line []byte) error {
	if l.torn {
		line = append([]byte{'\n'}, line...)
	}
	n, err := l.file.Write(line)
	if err == nil {
		l.torn = false
		return nil
	}
	if n == 0 {
		return err // the file is as it was
	}
	if undone := l.undo(int64(n)); undone != nil {
		l.torn = true
		return errors.Join(err, fmt.Errorf("take back %d bytes: %w", n, undone))
	}
	return err
}

// undo cuts off the last n bytes. We hold the lock, so they are the ones that
// we wrote.
func (l *Log) undo(n int64) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < n { // truncated by somebody: nothing of ours is left
		return nil
	}
	return l.file.Truncate(info.Size() - n)
}

// Reopen opens the path again: logrotate renames the file and sends SIGHUP. On
// an error the old file stays in use. No record is lost in between, and none
// is written to both.
func (l *Log) Reopen() error {
	if err := l.lock(context.Background()); err != nil {
		return err
	}
	defer l.unlock()
	if l.file == nil {
		return ErrClosed
	}
	file, err := openFile(l.path, l.file)
	if errors.Is(err, errSame) {
		return nil
	}
	var torn bool
	if err == nil {
		if torn, err = endsTorn(file); err != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("reopen audit log %q: %w", l.path, err)
	}
	old := l.file
	l.file, l.torn = file, torn // a crash here leaves whole lines in both
	if err := errors.Join(old.Sync(), old.Close()); err != nil {
		return fmt.Errorf("close the previous audit log: %w", err)
	}
	return nil
}

// Close syncs and closes the file. Closing twice is fine.
func (l *Log) Close() error {
	if err := l.lock(context.Background()); err != nil {
		return err
	}
	defer l.unlock()
	if l.file == nil {
		return nil
	}
	// The lock goes last: whoever has it then reads a file that is written to its end.
	err := errors.Join(l.file.Sync(), l.file.Close(), l.side.Close())
	l.file, l.side = nil, nil
	if err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

func (l *Log) lock(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("other writers are being waited for: %w", ctx.Err())
	}
}

func (l *Log) unlock() { <-l.turn }

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

// check refuses what is no regular file, or has one of the forbidden mode bits.
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

// endsTorn reports whether the file ends in the middle of a line, as a crash or
// a power failure leaves it. It is not cut off: it is evidence.
func endsTorn(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return false, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], info.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return last[0] != '\n', nil
}
