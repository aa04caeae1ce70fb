package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"time"
)

// Verify reads logs and says what is wrong with them. They may be named in any
// order. Heads are those that were kept elsewhere; without them nobody can see
// that records are missing at the end, or that the whole of a log was written
// anew. The error is about reading a file, never about what stands in it.
func Verify(paths []string, heads []Head) (Report, error) {
	paths, err := InOrder(paths)
	if err != nil {
		return Report{}, err
	}
	v := newVerifier(heads)
	for _, path := range paths {
		v.begin(path)
		if err := EachLine(path, func(line []byte, whole bool) bool { v.line(line, whole); return true }); err != nil {
			return Report{}, err
		}
		v.end()
	}
	return v.report(heads), nil
}

// place is where a line stands.
type place struct {
	file string
	line int
	pos  int // counts the lines of all files
}

// segment is a run of records of which each follows the one before, in the
// order in which they were met. A log that is whole has one.
type segment struct {
	first, last place
	from, to    uint64
	prev, hash  digest // what its first record follows; its last record's
	copied      bool   // its first record has been met before
}

// hole is a line that is no record, or one that was changed.
type hole struct {
	place
	link // what it says that it is, if anything
	torn bool
	json bool // it is JSON, though no record of a chain
}

const (
	// recent is how many records are remembered to tell a copy from a forgery.
	recent = 1 << 10
	// maxSegments and maxStrands bound what is kept of files that are nothing but
	// damage.
	maxSegments = 10_000
	maxStrands  = 1_000
)

// strand is a chain while it is read. The files may hold several: those of
// other replicas, or of logs before this one.
type strand struct {
	id       string
	records  uint64
	current  *segment
	parted   map[digest]*segment // all others, by their last record
	segments []*segment
	skipped  int // records that would have been segments beyond the bound

	seen [recent]struct { // by seq
		seq  uint64
		hash digest
	}
	firstTime, lastTime string
}

type verifier struct {
	files   []string
	at      place
	strands map[string]*strand
	order   []*strand
	holes   []hole
	damages []Damage
	notes   []string
	records uint64
	// wanted are the seqs of anchored heads, by chain; met their hashes.
	wanted map[string]map[uint64]bool
	met    map[Head]place

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

func newVerifier(heads []Head) *verifier {
	v := &verifier{strands: map[string]*strand{}, wanted: map[string]map[uint64]bool{}, met: map[Head]place{}}
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
		l, ok := parseLink(line)
		valid := whole && json.Valid(line)
		if ok && l.sound && valid && (v.strands[l.chain] != nil || len(v.strands) < maxStrands) {
			v.record(&l, line)
			return
		}
		v.holes = append(v.holes, hole{place: v.at, link: l.link, json: valid})
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

func (v *verifier) record(l *linked, line []byte) {
	if bytes.Contains(line, []byte(`"event":"`+EventTorn+`"`)) {
		v.torn(l, line)
	}
	v.clean()
	v.records++
	s := v.strands[l.chain]
	if s == nil {
		s = &strand{id: l.chain, parted: map[digest]*segment{}, firstTime: timeOf(line)}
		v.strands[l.chain] = s
		v.order = append(v.order, s)
	}
	s.records++
	s.lastTime = timeOf(line)
	s.take(l, v.at)
	if wanted := v.wanted[l.chain]; wanted != nil && wanted[l.seq] {
		v.met[Head{Chain: l.chain, Seq: l.seq, Hash: string(l.hash[:])}] = v.at
	}
}

// torn looks whether the damage that a record tells of stands before it. A line
// that was finished is no trace of a write that was cut off.
func (v *verifier) torn(l *linked, line []byte) {
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
		v.holes[len(v.holes)-1].torn = true
	case err != nil || !open && !full:
		v.damages = append(v.damages, damage(Changed, v.at, l.seq, "the %d bytes that this record tells of do not stand before it any more", r.Bytes))
	} // else lines that were finished: they are told as any others
}

// take puts a record behind the one that it follows.
func (s *strand) take(l *linked, at place) {
	slot := &s.seen[l.seq%recent]
	copied := slot.seq == l.seq && slot.hash == l.hash
	slot.seq, slot.hash = l.seq, l.hash
	if c := s.current; c != nil && (!copied || c.copied) && c.to+1 == l.seq && c.hash == l.prev {
		c.to, c.hash, c.last = l.seq, l.hash, at
		return
	}
	if s.current != nil {
		s.parted[s.current.hash] = s.current
	}
	if have := s.parted[l.prev]; have != nil && !copied && have.to+1 == l.seq {
		delete(s.parted, l.prev)
		have.to, have.hash, have.last = l.seq, l.hash, at
		s.current = have
		return
	}
	if len(s.segments) >= maxSegments {
		s.skipped++
		return
	}
	s.current = &segment{first: at, last: at, from: l.seq, to: l.seq, prev: l.prev, hash: l.hash, copied: copied}
	s.segments = append(s.segments, s.current)
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
