package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// maxLine is more than any record has. What is longer is none.
const maxLine = 1 << 20

// lines reads a log line by line, whatever stands in it.
type lines struct {
	r    *bufio.Reader
	long []byte // a line that is longer than the reader's buffer
}

// newLines reads what gzip packed as well.
func newLines(r io.Reader) (*lines, error) {
	buf := bufio.NewReaderSize(r, 32<<10)
	if magic, err := buf.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		unpacked, err := gzip.NewReader(buf)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		buf = bufio.NewReaderSize(unpacked, 32<<10)
	}
	return &lines{r: buf}, nil
}

// next returns a line without its newline, valid until the next call. whole is
// false for a part of a line: the last one of a file that ends without a
// newline, or one that is too long. The error is io.EOF at the end.
func (l *lines) next() (line []byte, whole bool, err error) {
	l.long = l.long[:0]
	line, err = l.r.ReadSlice('\n')
	for errors.Is(err, bufio.ErrBufferFull) && len(l.long) < maxLine {
		l.long = append(l.long, line...)
		line, err = l.r.ReadSlice('\n')
	}
	if len(l.long) > 0 {
		l.long = append(l.long, line...)
		line = l.long
	}
	switch {
	case err == nil:
		return line[:len(line)-1], true, nil
	case len(line) > 0 && (errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF)):
		return line, false, nil
	}
	return nil, false, err
}

// InOrder sorts logs by the first record of each, so that nobody has to name
// rotated files from the oldest to the newest. Chains stay in the order in which
// they were named; a file without a record stays behind the one named before it.
func InOrder(paths []string) ([]string, error) {
	type begin struct {
		path  string
		chain int // its place among the chains
		seq   uint64
	}
	places := map[string]int{}
	before := begin{chain: -1}
	var list []begin
	for _, path := range paths {
		first, found, err := firstRecord(path)
		if err != nil {
			return nil, err
		}
		b := before
		b.path = path
		if found {
			if _, ok := places[first.chain]; !ok {
				places[first.chain] = len(places)
			}
			b.chain, b.seq = places[first.chain], first.seq
		}
		before = b
		list = append(list, b)
	}
	slices.SortStableFunc(list, func(a, b begin) int {
		if a.chain != b.chain {
			return a.chain - b.chain
		}
		return compareSeq(a.seq, b.seq)
	})
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = b.path
	}
	return out, nil
}

func compareSeq(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// firstRecord is the first of a file, or, where all were changed, what the first says that it is.
func firstRecord(path string) (first link, found bool, err error) {
	sound := false
	err = EachLine(path, func(line []byte, whole bool) bool {
		l, ok := parseLink(line)
		sound = ok && whole && l.sound
		if sound || ok && !found {
			first, found = l.link, true
		}
		return !sound
	})
	return first, found, err
}

// EachLine reads a log, packed by gzip or not, until its end or until f has had
// enough. whole is false for a last line without a newline, and for a part of
// one that is longer than any record. The line is valid until f returns.
func EachLine(path string, f func(line []byte, whole bool) bool) (err error) {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	in, err := newLines(file)
	for err == nil {
		var line []byte
		var whole bool
		if line, whole, err = in.next(); err == nil && !f(line, whole) {
			return nil
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read %q: %w", path, err)
}

// Holds reports whether the log's file holds a record. known is false where the
// file begins after it, or is of another chain: then it cannot tell.
func (l *Log) Holds(h Head) (holds, known bool, err error) {
	err = EachLine(l.path, func(line []byte, whole bool) bool {
		got, ok := parseLink(line)
		if !ok || !whole || !got.sound || got.chain != h.Chain {
			return true
		}
		known = known || got.seq <= h.Seq
		holds = got.seq == h.Seq && string(got.hash[:]) == h.Hash
		return got.seq < h.Seq
	})
	return holds, known, err
}

// timeOf is the time that a record begins with, for people.
func timeOf(line []byte) string {
	if rest, ok := bytes.CutPrefix(line, []byte(`{"time":"`)); ok {
		if text, _, ok := bytes.Cut(rest, []byte(`"`)); ok && len(text) <= 40 {
			return string(text)
		}
	}
	return ""
}
