package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckOwner refuses a file or a directory that belongs to another user than
// root and the process's own: its owner can change it whatever its mode says.
func CheckOwner(info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("this system does not tell who owns it")
	}
	if uid := os.Geteuid(); stat.Uid != 0 && int(stat.Uid) != uid {
		return fmt.Errorf("it belongs to uid %d, who could change it; it must belong to root or to uid %d: run chown %d on it", stat.Uid, uid, uid)
	}
	return nil
}

// CheckWriters refuses what anybody but root, root's group and the process's
// own user may write.
func CheckWriters(info fs.FileInfo) error {
	if err := CheckOwner(info); err != nil {
		return err
	}
	mode := info.Mode().Perm()
	if mode&0o002 != 0 {
		return fmt.Errorf("mode %04o lets everybody write it; run chmod go-w on it", mode)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); mode&0o020 != 0 && (!ok || stat.Gid != 0) {
		return fmt.Errorf("mode %04o lets its group write it; run chmod g-w on it", mode)
	}
	return nil
}
