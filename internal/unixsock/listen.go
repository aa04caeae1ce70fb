package unixsock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxPath is how many bytes the path of a Unix socket may have: sun_path
// without its final NUL (unix(7)).
const MaxPath = 107

// DefaultMode is the mode of a socket whose Config names none.
const DefaultMode fs.FileMode = 0o600

var (
	// ErrInUse: another process listens at the path, or is about to.
	ErrInUse = errors.New("another process listens there")
	// ErrNotSocket: what stands at the path is no socket, so it is not ours to
	// take away.
	ErrNotSocket = errors.New("not a socket")
	// ErrDirectory: somebody else could replace a socket in this directory.
	ErrDirectory = errors.New("unsafe socket directory")
)

// Config says where to listen and who may connect.
type Config struct {
	// Path is at most MaxPath bytes. Its directory must exist, belong to root or
	// to this process's uid, and be writable by nobody else but the group 0.
	Path string
	// Mode is the mode of the socket, read and write bits only; whoever may
	// write may connect. 0 means DefaultMode.
	Mode fs.FileMode
	// GID is the socket's group; -1 leaves the one that the system gave it.
	GID int
	// Logger learns of a dead socket that was replaced. nil discards it.
	Logger *slog.Logger
}

// Listener is a Unix listener that takes its socket file away when it closes,
// provided that the file is still its own.
type Listener struct {
	*net.UnixListener

	dir  *os.Root
	name string
	own  fs.FileInfo

	once sync.Once
	err  error
}

// Listen opens a listening socket at a path. A socket file that a dead process
// left is replaced; anything else that stands there makes it fail: ErrInUse,
// ErrNotSocket or ErrDirectory. The socket is closed to everybody but the own
// uid until its group and mode are as configured.
func Listen(cfg Config) (*Listener, error) {
	l, err := listen(cfg)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", cfg.Path, err)
	}
	return l, nil
}

func listen(cfg Config) (*Listener, error) {
	if cfg.Mode == 0 {
		cfg.Mode = DefaultMode
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	dir, err := openDir(filepath.Dir(cfg.Path))
	if err != nil {
		return nil, err
	}
	l, err := listenIn(dir, cfg)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return l, nil
}

func (c Config) check() error {
	switch base := filepath.Base(c.Path); {
	case c.Path == "":
		return errors.New("the path is empty")
	case strings.HasPrefix(c.Path, "@"), strings.ContainsRune(c.Path, 0):
		return errors.New("an abstract socket has no owner and no mode; use a path such as /run/keyturn/sign.sock")
	case base == "." || base == ".." || base == "/" || strings.HasSuffix(c.Path, "/"):
		return errors.New("the path names a directory; add the name of the socket")
	case len(c.Path) > MaxPath:
		return fmt.Errorf("the path has %d bytes and the system allows %d; use a shorter directory, such as /run/keyturn", len(c.Path), MaxPath)
	case c.Mode&^0o666 != 0:
		return fmt.Errorf("mode %#o: a socket has read and write bits only; 0660 lets its group connect", c.Mode)
	case c.GID < -1:
		return fmt.Errorf("gid %d: use -1 to leave the group as it is", c.GID)
	}
	return nil
}

// listenIn works under a lock, so that of two daemons which find the same dead
// socket the later one does not take away what the earlier has just opened.
//
// A crash leaves, after the removal: nothing at the path; after bind: a socket
// that only the own uid can reach and nobody listens on. The next start
// replaces it. A lock file that is left is taken over.
func listenIn(dir *os.Root, cfg Config) (*Listener, error) {
	name := filepath.Base(cfg.Path)
	unlock, err := lock(dir, "."+name+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := makeRoom(dir, name, cfg); err != nil {
		return nil, err
	}
	ln, err := bind(cfg.Path)
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false) // Close removes the file only if it is ours
	own, err := dir.Lstat(name)
	if err == nil && own.Mode().Type() != fs.ModeSocket {
		err = fmt.Errorf("the directory was replaced while listening: %w", ErrDirectory)
	}
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	l := &Listener{UnixListener: ln, dir: dir, name: name, own: own}
	if err := l.open(cfg); err != nil {
		return nil, errors.Join(err, l.remove(), ln.Close())
	}
	return l, nil
}

// bind creates the socket with mode 0600, whatever the umask: on Linux the
// file takes the mode that the descriptor had before (and less what the umask
// takes away). Other goroutines may create files meanwhile, so the umask of
// the process is not an instrument.
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, modeErr)
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, ErrInUse // somebody who does not know our lock was faster
	}
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}

// open lets the callers in: the group first, since the mode means nothing
// before it is the right one.
func (l *Listener) open(cfg Config) error {
	if cfg.GID >= 0 {
		if err := l.dir.Lchown(l.name, -1, cfg.GID); errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("give the socket to group %d: the daemon is not in it; add it (systemd: SupplementaryGroups=): %w", cfg.GID, err)
		} else if err != nil {
			return fmt.Errorf("give the socket to group %d: %w", cfg.GID, err)
		}
	}
	if err := l.dir.Chmod(l.name, cfg.Mode); err != nil {
		return fmt.Errorf("set the mode of the socket: %w", err)
	}
	return nil
}

// Close stops listening. The file goes first: while we listen nobody replaces
// it, so what is removed is ours. A crash in between leaves nothing.
func (l *Listener) Close() error {
	l.once.Do(func() {
		l.err = errors.Join(l.remove(), l.UnixListener.Close(), l.dir.Close())
	})
	return l.err
}

// remove takes the socket file away if it is still the one that we created.
func (l *Listener) remove() error {
	now, err := l.dir.Lstat(l.name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, l.own) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if err := l.dir.Remove(l.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket: %w", err)
	}
	return nil
}
