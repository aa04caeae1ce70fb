package verify

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/keyturn/keyturn/audit"
)

// maxLine is more than any record has. What is longer is none.
const maxLine = 1 << 20

// errUnpack: what gzip packed was changed, or ends too early.
var errUnpack = errors.New("unpack")

// lines reads a log line by line, whatever stands in it.
type lines struct {
	r      *bufio.Reader
	packed bool
	long   []byte // a line that is longer than the reader's buffer
}

// foreign are the first bytes of other packers' files, none of which begins a record.
var foreign = []struct{ name, magic string }{
	{"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ\x00"}, {"bzip2", "BZh"}, {"lz4", "\x04\x22\x4d\x18"},
}

// newLines reads what gzip packed as well.
func newLines(r io.Reader) (*lines, error) {
	buf := bufio.NewReaderSize(r, 32<<10)
	for _, f := range foreign {
		if magic, _ := buf.Peek(len(f.magic)); string(magic) == f.magic {
			return nil, fmt.Errorf("it is packed by %s, and only gzip is read: unpack it first", f.name)
		}
	}
	if magic, err := buf.Peek(2); err != nil || magic[0] != 0x1f || magic[1] != 0x8b {
		return &lines{r: buf}, nil
	}
	unpacked, err := gzip.NewReader(buf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnpack, err)
	}
	return &lines{r: bufio.NewReaderSize(unpacked, 32<<10), packed: true}, nil
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
	case l.packed && !errors.Is(err, io.EOF):
		return nil, false, fmt.Errorf("%w: %w", errUnpack, err)
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
		first, err := firstRecord(path)
		if err != nil {
			return nil, err
		}
		b := before
		b.path = path
		if first.Seq > 0 {
			if _, ok := places[first.Chain]; !ok {
				places[first.Chain] = len(places)
			}
			b.chain, b.seq = places[first.Chain], first.Seq
		}
		before = b
		list = append(list, b)
	}
	slices.SortStableFunc(list, func(a, b begin) int {
		return cmp.Or(cmp.Compare(a.chain, b.chain), cmp.Compare(a.seq, b.seq))
	})
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = b.path
	}
	return out, nil
}

// firstRecord is the first of a file, or, where all were changed, what the first
// says that it is. Its seq is 0 where there is none.
func firstRecord(path string) (first audit.Link, err error) {
	err = EachLine(path, func(line []byte, _ bool) bool {
		l, sound := audit.ParseLink(line)
		if sound || first.Seq == 0 {
			first = l
		}
		return !sound
	})
	if errors.Is(err, errUnpack) { // what was damaged is told by who reads all of it
		err = nil
	}
	return first, err
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
	if errors.Is(err, io.EOF) && !errors.Is(err, errUnpack) {
		return nil
	}
	return fmt.Errorf("read %q: %w", path, err)
}

// Holds reports whether a log's file holds a record. known is false where the
// file begins after it, or is of another chain: then it cannot tell.
func Holds(path string, h audit.Head) (holds, known bool, err error) {
	err = EachLine(path, func(line []byte, _ bool) bool {
		got, sound := audit.ParseLink(line)
		if !sound || got.Chain != h.Chain {
			return true
		}
		known = known || got.Seq <= h.Seq
		holds = got.Seq == h.Seq && string(got.Hash[:]) == h.Hash
		return got.Seq < h.Seq
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
