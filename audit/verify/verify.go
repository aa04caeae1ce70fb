package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/keyturn/keyturn/audit"
)

// Known is what an auditor knows of a log from elsewhere. Without it nobody can
// see that records are missing at the end, or that the whole of a log was
// written anew.
type Known struct {
	// Anchors are the heads that were kept, by time. Those of records before the
	// first that is there are no damage: logs are rotated away.
	Anchors []audit.Head
	// Held are records that have to be there, whatever was rotated away.
	Held []audit.Head
}

// Files reads logs and says what is wrong with them. They may be named in any
// order. The error is about reading a file, never about what stands in it.
func Files(paths []string, known Known) (Report, error) {
	paths, err := InOrder(paths)
	if err != nil {
		return Report{}, err
	}
	v := newVerifier(slices.Concat(known.Anchors, known.Held))
	for _, path := range paths {
		v.begin(path)
		err := EachLine(path, func(line []byte, whole bool) bool { v.line(line, whole); return true })
		switch {
		case errors.Is(err, errUnpack):
			v.unreadable(err)
		case err != nil:
			return Report{}, err
		}
		v.end()
	}
	return v.report(known), nil
}

// place is where a line stands.
type place struct {
	file string
	line int
	pos  int // counts the lines of all files
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// segment is a run of records of which each follows the one before, in the
// order in which they were met. A log that is whole has one.
type segment struct {
	first, last place
	from, to    uint64
	prev, hash  audit.Digest // what its first record follows; its last record's
	copied      bool         // its first record has been met before
}

// hole is a line that is no record, or one that was changed.
type hole struct {
	place
	audit.Link      // what it says that it is, if anything
	torn       bool // its write was cut off, as it seems
	// vouched: a record tells so, and was written when it was found.
	vouched bool
	json    bool // it is JSON, though no record of a chain
}

const (
	// recent is how many records are remembered to tell a copy from a forgery.
	recent = 1 << 10
	// maxSegments, maxStrands and maxHoles bound what is kept of files that are
	// nothing but damage.
	maxSegments = 10_000
	maxStrands  = 1_000
	maxHoles    = 100_000
)

// strand is a chain while it is read. The files may hold several: those of
// other replicas, or of logs before this one.
type strand struct {
	id       string
	begin    place // its first record, as they stand
	end      place // its last one, as it is judged
	records  uint64
	current  *segment
	parted   map[audit.Digest]*segment // all others, by their last record
	segments []*segment
	skipped  int // records that would have been segments beyond the bound

	seen [recent]struct { // by seq
		seq  uint64
		hash audit.Digest
	}
	firstTime, lastTime string
}

type verifier struct {
	files   []string
	at      place
	strands map[string]*strand
	order   []*strand
	holes   []hole
	skipped int // holes beyond the bound, of which only the last is kept
	damages []Damage
	notes   []string
	records uint64
	heads   []audit.Head
	// wanted are the seqs of anchored heads, by chain; met their hashes.
	wanted map[string]map[uint64]bool
	met    map[audit.Head]place

	// damaged is what stands since the last record of this file: a torn record
	// may tell of it.
	damaged struct {
		sum        hash.Hash
		bytes      int64
		open       [sha256.Size]byte // the digest without the last newline
		openBytes  int64
		line       hash.Hash // of the last line alone
		lineBytes  int64
		first      int // of holes
		midOfALine bool
	}
}

func newVerifier(heads []audit.Head) *verifier {
	v := &verifier{heads: heads, strands: map[string]*strand{}, wanted: map[string]map[uint64]bool{}, met: map[audit.Head]place{}}
	for _, h := range heads {
		if v.wanted[h.Chain] == nil {
			v.wanted[h.Chain] = map[uint64]bool{}
		}
		v.wanted[h.Chain][h.Seq] = true
	}
	v.damaged.sum, v.damaged.line = sha256.New(), sha256.New()
	return v
}

func (v *verifier) begin(file string) {
	v.files = append(v.files, file)
	v.at.file, v.at.line = file, 0
	v.clean()
}

// clean forgets what stood before: a record has been met.
func (v *verifier) clean() {
	d := &v.damaged
	if d.bytes > 0 || d.openBytes > 0 {
		d.sum.Reset()
	}
	d.bytes, d.openBytes, d.first, d.midOfALine = 0, 0, len(v.holes), false
}

// end is the end of a file: a last line without a newline was never finished.
func (v *verifier) end() {
	if v.damaged.midOfALine && len(v.holes) > v.damaged.first {
		v.holes[len(v.holes)-1].torn = true
	}
}

func (v *verifier) line(line []byte, whole bool) {
	if !v.damaged.midOfALine {
		v.at.line++
		v.at.pos++
		l, sound := audit.ParseLink(line)
		valid := json.Valid(line) // also without its newline, which says nothing
		if sound && valid && (v.strands[l.Chain] != nil || len(v.strands) < maxStrands) {
			v.record(&l, line)
			return
		}
		if len(v.holes) == maxHoles {
			v.holes, v.skipped = v.holes[:maxHoles-1], v.skipped+1
		}
		v.holes = append(v.holes, hole{place: v.at, Link: l, json: valid && whole})
		v.damaged.line.Reset()
		v.damaged.lineBytes = 0
	}
	d := &v.damaged
	d.line.Write(line)
	d.lineBytes += int64(len(line))
	d.midOfALine = !whole
	d.sum.Write(line)
	d.bytes += int64(len(line))
	d.openBytes = d.bytes
	d.sum.Sum(d.open[:0])
	if whole {
		d.sum.Write([]byte{'\n'})
		d.bytes++
	}
}

func (v *verifier) record(l *audit.Link, line []byte) {
	if bytes.Contains(line, []byte(`"event":"`+audit.EventTorn+`"`)) {
		v.torn(l, line)
	}
	v.clean()
	v.records++
	s := v.strands[l.Chain]
	if s == nil {
		s = &strand{id: l.Chain, begin: v.at, parted: map[audit.Digest]*segment{}, firstTime: timeOf(line)}
		v.strands[l.Chain] = s
		v.order = append(v.order, s)
	}
	s.records++
	s.lastTime = timeOf(line)
	s.take(l, v.at)
	if wanted := v.wanted[l.Chain]; wanted != nil && wanted[l.Seq] {
		v.met[audit.Head{Chain: l.Chain, Seq: l.Seq, Hash: string(l.Hash[:])}] = v.at
	}
}

// torn looks whether the damage that a record tells of stands before it. A line
// that was finished is no trace of a write that was cut off.
func (v *verifier) torn(l *audit.Link, line []byte) {
	var r struct {
		Bytes int64  `json:"torn_bytes"`
		Sum   string `json:"torn_sha256"`
	}
	d := &v.damaged
	err := json.Unmarshal(line, &r)
	open := d.openBytes == r.Bytes && hex.EncodeToString(d.open[:]) == r.Sum
	full := d.bytes == r.Bytes && hex.EncodeToString(d.sum.Sum(nil)) == r.Sum
	// Where the file has no record before, only its last line is told of.
	last := len(v.holes) > d.first && d.lineBytes == r.Bytes && hex.EncodeToString(d.line.Sum(nil)) == r.Sum
	switch {
	case err == nil && last:
		v.holes[len(v.holes)-1].vouched = true
	case err != nil || !open && !full:
		v.damages = append(v.damages, damage(Changed, v.at, l.Seq, "the %d bytes that this record tells of do not stand before it any more", r.Bytes))
	} // else lines that were finished: they are told as any others
}

// take puts a record behind the one that it follows.
func (s *strand) take(l *audit.Link, at place) {
	slot := &s.seen[l.Seq%recent]
	copied := slot.seq == l.Seq && slot.hash == l.Hash
	slot.seq, slot.hash = l.Seq, l.Hash
	if c := s.current; c != nil && (!copied || c.copied) && c.to+1 == l.Seq && c.hash == l.Prev {
		c.to, c.hash, c.last = l.Seq, l.Hash, at
		s.compare(c)
		return
	}
	if s.current != nil {
		s.parted[s.current.hash] = s.current
	}
	if have := s.parted[l.Prev]; have != nil && !copied && have.to+1 == l.Seq {
		delete(s.parted, l.Prev)
		have.to, have.hash, have.last = l.Seq, l.Hash, at
		s.current = have
		return
	}
	if len(s.segments) >= maxSegments {
		s.skipped++
		return
	}
	s.current = &segment{first: at, last: at, from: l.Seq, to: l.Seq, prev: l.Prev, hash: l.Hash, copied: copied}
	s.segments = append(s.segments, s.current)
}

// compare finds copies that are longer than what is remembered: two runs that
// end in the same record are the same before it.
func (s *strand) compare(c *segment) {
	have := s.parted[c.hash]
	switch {
	case have == nil || have.to != c.to:
	case have.from > c.from:
		have.copied = true
	default:
		c.copied = true
	}
}

// unreadable is the rest of a file that gzip does not give out.
func (v *verifier) unreadable(err error) {
	at := v.at
	at.line++
	v.damages = append(v.damages, damage(Changed, at, 0, "from here on the file cannot be read: %v; take a copy of it from elsewhere", err))
}

func (v *verifier) note(format string, args ...any) {
	v.notes = append(v.notes, fmt.Sprintf(format, args...))
}

func parseTime(text string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t
}
