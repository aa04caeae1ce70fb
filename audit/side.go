package audit

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// side is what the side file holds: the chain's place, for an Open that finds
// an empty log, since logrotate may take the whole log away. While nobody has
// the log open it is the head. While it is written that would be out of date with
// each record, so it is the chain, and a record of the file in use; after a crash
// the newest rotated file tells the rest.
type side struct {
	Head
	Writing *Head `json:"writing,omitempty"`
}

// keep notes the newest record when the log is closed. A disk without room leaves
// none: then a log that was taken away meanwhile begins a new chain.
func keep(file *os.File, last Link) {
	if last.Seq > 0 {
		_ = put(file, side{Head: last.head()})
	}
}

// note replaces what Open found: with the first record it is out of date. Where it
// fails it is tried with the next.
func (l *Log) note() {
	if !l.noted {
		l.noted = put(l.side, side{Writing: &Head{Chain: l.last.Chain, Seq: l.last.Seq}}) == nil
	}
}

// put writes the side file, and leaves it empty where it cannot: half of it, or
// what is out of date, would mislead.
func put(file *os.File, s side) error {
	doc, err := json.Marshal(s)
	if err == nil {
		err = file.Truncate(0)
	}
	if err != nil {
		return err
	}
	if _, err = file.WriteAt(append(doc, '\n'), 0); err != nil {
		return errors.Join(err, file.Truncate(0))
	}
	return nil
}

func readSide(file *os.File) (s side, ok bool) {
	doc, err := io.ReadAll(io.LimitReader(io.NewSectionReader(file, 0, 1<<10), 1<<10))
	return s, err == nil && json.Unmarshal(doc, &s) == nil
}

// place is where the chain of an empty log goes on; its seq is 0 where nothing
// tells.
func (l *Log) place() Link {
	s, ok := readSide(l.side)
	switch {
	case !ok:
		return Link{}
	case s.Writing != nil:
		return l.rotated(*s.Writing)
	case s.Head.check() != nil:
		return Link{}
	}
	last := Link{Chain: s.Chain, Seq: s.Seq}
	copy(last.Hash[:], s.Hash)
	return last
}

// maxRotated is how many rotated files are looked at, the newest first.
const maxRotated = 8

// rotated is the last record of the file that was in use when the daemon died,
// if it was renamed in the same folder since. It has a record of that chain which is no
// older than the noted one: what ends before is an older file, and going on from
// there would give numbers twice.
func (l *Log) rotated(noted Head) (last Link) {
	dir, base := filepath.Split(l.path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return last
	}
	var files []fs.FileInfo
	for _, e := range entries {
		name := e.Name()
		if name == base || !strings.HasPrefix(name, base) || strings.HasSuffix(name, ".lock") || strings.HasSuffix(name, ".gz") {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, info := range files[:min(maxRotated, len(files))] {
		if found := lastOf(dir + info.Name()); found.Chain == noted.Chain && found.Seq >= max(noted.Seq, last.Seq+1) {
			last = found
		}
	}
	return last
}

// lastOf is the last record of a file that only we can write; its seq is 0 where
// there is none.
func lastOf(path string) Link {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Link{}
	}
	defer f.Close()
	if check(f, nil, 0o022, "") != nil {
		return Link{}
	}
	end, err := readEnd(f)
	if err != nil {
		return Link{}
	}
	return end.last
}
