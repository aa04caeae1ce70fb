package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// lookEvery is how often a log is looked at for what is new.
const lookEvery = 200 * time.Millisecond

// maxLook is more lines than are written between two looks.
const maxLook = 1 << 20

// follower reads a log that is written, over its rotations. A line is handed on
// when it has its newline.
type follower struct {
	path string
	warn func(format string, args ...any)
	file *os.File
	read int64
	// half is the beginning of a line.
	half []byte
}

// run calls emit with the last lines that are there, n at the least if there are
// as many, and then with those to come.
func (f *follower) run(ctx context.Context, n int, emit func(lines []string, first bool) error) (err error) {
	if f.file, err = os.Open(f.path); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.file.Close()) }()
	lines, err := f.drain(n)
	if err == nil {
		err = emit(lines, true)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if lines, err = f.look(); err == nil && len(lines) > 0 {
			err = emit(lines, false)
		}
	}
	return err
}

// look returns what is new. The old file is read to its end before the one that
// took its place.
func (f *follower) look() ([]string, error) {
	here, err := os.Stat(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	open, statErr := f.file.Stat()
	if statErr != nil {
		return nil, statErr
	}
	if err == nil && os.SameFile(here, open) && open.Size() < f.read {
		f.warn("%s was cut while it was followed: records may be missing", plainText(f.path))
		if _, err := f.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		f.read, f.half = 0, nil
	}
	lines, drainErr := f.drain(maxLook)
	if drainErr != nil || err != nil || os.SameFile(here, open) {
		return lines, drainErr
	}
	next, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return lines, nil // between the renaming and the new file
	}
	if err != nil {
		return lines, err
	}
	more, err := f.drain(maxLook) // what was written to the old file until the new one was there
	if err != nil {
		return lines, errors.Join(err, next.Close())
	}
	lines = append(lines, more...)
	if len(f.half) > 0 {
		lines = append(lines, string(f.half)) // nobody will finish it
	}
	if err := f.file.Close(); err != nil {
		return lines, errors.Join(err, next.Close())
	}
	f.file, f.read, f.half = next, 0, nil
	more, err = f.drain(maxLook)
	return append(lines, more...), err
}

// drain reads to the end of the file and returns the lines, or the last of them.
func (f *follower) drain(most int) (lines []string, err error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := f.file.Read(buf)
		f.read += int64(n)
		f.half = append(f.half, buf[:n]...)
		for {
			line, rest, found := bytes.Cut(f.half, []byte{'\n'})
			if !found {
				break
			}
			if lines = append(lines, string(line)); len(lines) > 2*most {
				lines = append(lines[:0], lines[len(lines)-most:]...)
			}
			f.half = rest
		}
		if errors.Is(err, io.EOF) {
			f.half = bytes.Clone(f.half)
			return lines, nil
		}
		if err != nil {
			return lines, fmt.Errorf("read %s: %w", f.path, err)
		}
	}
}
