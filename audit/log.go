package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

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
	// denials holds back what a caller is refused again and again.
	denials denials

	// mu guards waiting: what is to be written, in the order of the file.
	mu      sync.Mutex
	waiting []*entry

	// turn holds one token: whoever has it owns the fields below. It is a
	// channel, so that waiting behind a disk that hangs ends with the context.
	turn chan struct{}
	file *os.File // nil when closed
	// side holds the lock, as long as the log is open.
	side *os.File
	// last is the newest record; that of a log without one has seq 0.
	last Link
	// torn is what the file ends in, where that is no record.
	torn torn
	// doubt: a write failed and could not be taken back, so that last and torn
	// have to be read from the file again.
	doubt bool
	// size is that of the file, if nobody else cuts it.
	size int64
	// noted: the side file tells of the file in use.
	noted bool
	// out and group are kept for the next write.
	out   []byte
	group []*entry

	free sync.Pool // of *entry
}

// Open opens the log for appending and creates it with mode 0600. The
// directory must exist. A symbolic link, anything but a regular file, and a
// file that others can write are refused with ErrUnsafe, one that another
// process writes with ErrInUse. The lock is a side file, the path with ".lock"
// behind it, which stays when the log is closed.
//
// The chain goes on where the file ends. In an empty file it goes on from the
// record that was the last when the log was closed, which the side file keeps;
// after a crash from the last one of the file that was in use, if that was renamed
// in its folder. Where neither is found a new chain begins.
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
	end, err := readEnd(l.file)
	if err != nil {
		return errors.Join(err, l.file.Close(), l.side.Close())
	}
	l.last, l.torn, l.size = end.last, end.torn, end.size
	if end.size == 0 {
		l.last = l.place()
	}
	if l.last.Seq == 0 {
		l.last = newChain()
	}
	return nil
}

// Reopen opens the path again: logrotate renames the file and sends SIGHUP. On
// an error the old file stays in use. No record is lost in between, and none
// is written to both; the first of the new file follows the last of the old.
func (l *Log) Reopen() error {
	// What is held back belongs to the old file; where it cannot be written it is
	// held on.
	_ = l.Flush(context.Background())
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
	var end end
	if err == nil {
		if end, err = readEnd(file); err != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if err == nil && l.doubt {
		if err = l.settle(); err != nil {
			err = errors.Join(err, file.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("reopen audit log %q: %w", l.path, err)
	}
	old := l.file
	l.file, l.torn, l.size, l.noted = file, end.torn, end.size, false // a crash here leaves whole lines in both
	if err := errors.Join(old.Sync(), old.Close()); err != nil {
		return fmt.Errorf("close the previous audit log: %w", err)
	}
	return nil
}

// Close writes what is held back, syncs and closes the file. Closing twice is fine.
func (l *Log) Close() error {
	l.denials.close()
	flushed := l.Flush(context.Background())
	if err := l.lock(context.Background()); err != nil {
		return err
	}
	defer l.unlock()
	if l.file == nil {
		return nil
	}
	// The lock goes last: whoever has it then reads a file that is written to its end.
	err := errors.Join(flushed, l.file.Sync(), l.file.Close())
	if !l.doubt {
		keep(l.side, l.last)
	}
	err = errors.Join(err, l.side.Close())
	l.file, l.side = nil, nil
	if err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}

// Head syncs the file and returns its newest record: after a power failure the
// log still holds it. Its seq is 0 where the log never had a record.
func (l *Log) Head(ctx context.Context) (Head, error) {
	if err := l.lock(ctx); err != nil {
		return Head{}, fmt.Errorf("head of audit log %q: %w", l.path, err)
	}
	file, last := l.file, l.last
	l.unlock()
	if file == nil {
		return Head{}, ErrClosed
	}
	// Writers do not wait for the disk. A file that is closed meanwhile was synced first.
	if err := file.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return Head{}, fmt.Errorf("sync audit log: %w", err)
	}
	h := last.head()
	h.Time, h.File = time.Now().UTC().Round(0), l.path
	return h, nil
}

// Harm says that somebody took away what was written to the file in use: it was
// cut, as logrotate's copytruncate does, or removed. nil until then, and again
// after a Reopen.
func (l *Log) Harm(ctx context.Context) error {
	if err := l.lock(ctx); err != nil {
		return nil // a log that hangs is told by those who write
	}
	defer l.unlock()
	if l.file == nil {
		return nil
	}
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("audit log %q: %w", l.path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(l.file.Fd()), &st); err == nil && st.Nlink == 0 {
		return fmt.Errorf("audit log %q was removed while it is written, and its records go with it; send SIGHUP for a new file", l.path)
	}
	if info.Size() < l.size {
		return fmt.Errorf("audit log %q was cut from %d to %d bytes while it is written; let logrotate rename it and send SIGHUP, without copytruncate", l.path, l.size, info.Size())
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
