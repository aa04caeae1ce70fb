package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNotRegular reports that something other than a regular file stands where
// one was to be read or written: a symbolic link, a directory, a FIFO, a
// socket, a device. Write never replaces it.
var ErrNotRegular = errors.New("not a regular file")

// ErrTooLarge reports a file that holds more bytes than the caller would take.
var ErrTooLarge = errors.New("file too large")

// Write replaces the file name in the directory root with data. name is one
// path element. The file gets exactly mode, whatever the umask, and belongs to
// the process.
//
// After an error the old file is whole, or, if it was the last step that
// failed, the new one stands but may not survive a power cut; nothing else is
// left behind. Writers of one file may race: one of them wins, whole.
func Write(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	if err := checkTarget(root, name); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(root.Name(), name), err)
	}
	temp := tempPrefix(name) + rand.Text()[:13] + tempSuffix
	err := writeTemp(root, temp, data, mode)
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		// The error of the removal says nothing new: where it fails, so did the rest.
		_ = root.Remove(temp)
		return fmt.Errorf("write %s: %w", filepath.Join(root.Name(), name), err)
	}
	if err := SyncDir(root); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Join(root.Name(), name), err)
	}
	return nil
}

// WriteFile is Write for a path. Links in the path of the directory are
// followed, a link at the path itself is refused.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer root.Close()
	return Write(root, filepath.Base(path), data, mode)
}

// Read returns the bytes of a regular file of at most limit bytes. It does not
// follow a link at the name and does not block on a FIFO.
func Read(root *os.Root, name string, limit int64) ([]byte, error) {
	path := filepath.Join(root.Name(), name)
	f, err := openRegular(root, name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes: %w", path, limit, ErrTooLarge)
	}
	return data, nil
}

// Sweep removes the temp files of name that crashed writers left. The caller
// makes sure that nobody writes the file meanwhile.
func Sweep(root *os.Root, name string) error {
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("sweep %s: %w", root.Name(), err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", root.Name(), err)
	}
	var errs []error
	for _, n := range names {
		middle, ok := strings.CutPrefix(n, tempPrefix(name))
		if !ok || len(middle) != 13+len(tempSuffix) || !strings.HasSuffix(middle, tempSuffix) {
			continue
		}
		if err := root.Remove(n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// SyncDir makes what was created, renamed or removed in the directory durable.
func SyncDir(root *os.Root) error {
	dir, err := root.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

const tempSuffix = ".tmp"

func tempPrefix(name string) string { return "." + name + "." }

func writeTemp(root *os.Root, temp string, data []byte, mode fs.FileMode) (err error) {
	// O_EXCL: a link or a file that somebody put under this name is not opened.
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return fmt.Errorf("make a file in %s: %w", root.Name(), path.Err) // its own name tells nobody anything
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	// Not through the root: a path could be exchanged, the open file cannot.
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// checkTarget refuses a name that is not one path element and a target that
// is not a regular file. Something exchanged after the check is replaced by
// the rename or refused by it; it is never written through.
func checkTarget(root *os.Root, name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, filepath.Separator) {
		return fmt.Errorf("%q is not the name of a file", name)
	}
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	return checkRegular(info)
}

func checkRegular(info fs.FileInfo) error {
	if info.Mode().IsRegular() {
		return nil
	}
	return fmt.Errorf("%w but %s; remove it or name another path", ErrNotRegular, describe(info.Mode()))
}

func describe(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

func openRegular(root *os.Root, name string) (*os.File, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(before); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	// What was opened must be what was checked: a link or a FIFO may have taken
	// its place. A regular file that was renamed over it meanwhile is fine.
	after, err := f.Stat()
	if err == nil {
		err = checkRegular(after)
	}
	if err == nil && !os.SameFile(before, after) {
		var again fs.FileInfo
		if again, err = root.Lstat(name); err == nil {
			err = checkRegular(again)
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
