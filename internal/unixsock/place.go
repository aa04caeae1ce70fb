package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// probeTimeout bounds the question whether somebody listens.
const probeTimeout = 2 * time.Second

// openDir opens the directory of a socket and refuses one in which somebody
// else could replace it: clients would then talk to a stranger. Only the
// directory itself is judged, since a volume's root is often open to all (an
// emptyDir is 0777) and a subdirectory is all that can be done about it.
func openDir(path string) (*os.Root, error) {
	dir, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("directory %q does not exist; create it with mode 0755, owned by uid %d (systemd: RuntimeDirectory=)", path, os.Geteuid())
	}
	if err != nil {
		return nil, fmt.Errorf("open the directory: %w", err)
	}
	info, err := dir.Stat(".")
	if err == nil {
		err = checkDir(path, info)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func checkDir(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("this system does not tell who owns a directory")
	}
	mode := info.Mode().Perm()
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %q %s", ErrDirectory, path, fmt.Sprintf(format, args...))
	}
	switch uid := os.Geteuid(); {
	case mode&0o002 != 0:
		return refuse("(mode %#o) can be written by everybody, who could put a socket of their own there; make a subdirectory for the socket: mkdir -m 0755 %s/keyturn, owned by uid %d", mode, path, uid)
	case int(st.Uid) != 0 && int(st.Uid) != uid:
		return refuse("belongs to uid %d, who could replace the socket; it must belong to root or to uid %d", st.Uid, uid)
	case mode&0o020 != 0 && st.Gid != 0: // the own group is no exception: callers are often in it
		return refuse("(mode %#o) can be written by group %d, whose members could replace the socket: chmod g-w %s; the group needs x there and w on the socket only", mode, st.Gid, path)
	}
	return nil
}

// makeRoom clears the way for a socket: nothing may stand at its name but a socket
// that nobody listens on.
func makeRoom(dir *os.Root, name string, cfg Config) error {
	info, err := dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at the path: %w", err)
	case info.Mode().Type() == fs.ModeSymlink:
		return fmt.Errorf("a symbolic link stands there (%w); name the real path, or remove the link", ErrNotSocket)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("a file of type %s stands there (%w); remove it or choose another path", fs.FormatFileInfo(info)[:1], ErrNotSocket)
	}
	conn, err := net.DialTimeout("unix", cfg.Path, probeTimeout)
	switch {
	case err == nil:
		_ = conn.Close() // asked and answered
		return fmt.Errorf("%w; stop it first", ErrInUse)
	case errors.Is(err, unix.ECONNREFUSED): // the one answer that means a dead socket
	default: // a full backlog, a socket of another type, no permission: somebody may live there
		return fmt.Errorf("%w, as far as can be told (%w); stop it, or remove the socket if it is dead", ErrInUse, err)
	}
	if err := dir.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the dead socket: %w", err)
	}
	cfg.Logger.Info("replaced a dead socket", "path", cfg.Path)
	return nil
}

// lock takes the start-up lock of a socket: a file of mode 0600 in its
// directory. (A lock on the directory itself could be held by anybody who may
// read it.) The returned func gives it back and removes the file.
func lock(dir *os.Root, name string) (func(), error) {
	for range 100 {
		f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("uid %d may not write into the directory: %w", os.Geteuid(), err)
		}
		if err != nil {
			return nil, fmt.Errorf("open the start-up lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close() // nothing was written
			return nil, fmt.Errorf("%w: it is just starting (its lock %s is held)", ErrInUse, name)
		}
		// The holder before us may have removed the file that we opened: then
		// the lock of a file without a name protects nothing.
		mine, err1 := f.Stat()
		there, err2 := dir.Lstat(name)
		if err1 == nil && err2 == nil && os.SameFile(mine, there) {
			return func() {
				_ = dir.Remove(name) // a lock file that stays is taken over
				_ = f.Close()        // gives the lock back
			}, nil
		}
		_ = f.Close() // nothing was written
	}
	return nil, fmt.Errorf("%w: its start-up lock %s changes all the time", ErrInUse, name)
}
