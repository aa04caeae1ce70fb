package unixsock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenRefusesAGroupOfItsOwn: a daemon's group is where its callers are
// put, so it gets no more than any other.
func TestListenRefusesAGroupOfItsOwn(t *testing.T) {
	const group = 2345
	dir := filepath.Join(openDirFor(t), "run")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, -1, group), os.Chmod(dir, 0o775)); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine: it alone changes its group
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), group, ^uintptr(0)); errno != 0 || os.Getegid() != group {
			refused <- fmt.Errorf("become group %d: %w", group, errno)
			return
		}
		l, err := Listen(Config{Path: filepath.Join(dir, "s"), GID: -1})
		if err == nil {
			_ = l.Close() // it should not have been
		}
		refused <- err
	}()
	if err := <-refused; !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), "chmod g-w") {
		t.Errorf("Listen = %v, want ErrDirectory", err)
	}
}
