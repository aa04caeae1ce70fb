package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// end is what a file ends in.
type end struct {
	last link // seq 0 where no record is found
	torn torn
	size int64
}

// torn is what follows the last record of a file without being one: what a
// crash, a power failure or a disk without room left. It is not cut off, for it
// is evidence; the next record tells its length and its digest.
type torn struct {
	bytes int64
	sum   [sha256.Size]byte
	open  bool // it has no newline at its end
}

// start is where seal's record begins.
func (t torn) start() int {
	if t.open {
		return 1
	}
	return 0
}

// seal writes the record that tells of the damage, if there is any.
func (t torn) seal(dst []byte) []byte {
	if t.bytes == 0 {
		return dst
	}
	if t.open {
		dst = append(dst, '\n')
	}
	dst = appendTime(append(dst, `{"time":`...), time.Now())
	dst = append(append(append(dst, `,"event":"`...), EventTorn...), `","torn_bytes":`...)
	dst = strconv.AppendInt(dst, t.bytes, 10)
	dst = hex.AppendEncode(append(dst, `,"torn_sha256":"`...), t.sum[:])
	return append(dst, '"')
}

// lookBack bounds how far back a record is looked for.
const lookBack = 8 << 20

// readEnd looks from the end of the file for the last record, and takes the
// digest of what follows it. Where there is none within lookBack, what follows
// the last newline counts as torn.
func readEnd(f *os.File) (end, error) {
	info, err := f.Stat()
	if err != nil {
		return end{}, err
	}
	out := end{size: info.Size()}
	for window := int64(64 << 10); out.size > 0; window *= 4 {
		window = min(window, out.size, lookBack)
		data := make([]byte, window)
		if _, err := io.ReadFull(io.NewSectionReader(f, out.size-window, window), data); err != nil {
			return end{}, fmt.Errorf("read its end: %w", err)
		}
		rest, found := lastRecord(data, &out.last)
		if !found && window < min(out.size, lookBack) {
			continue
		}
		if !found {
			rest = data[bytes.LastIndexByte(data, '\n')+1:]
		}
		if len(rest) > 0 {
			out.torn = torn{int64(len(rest)), sha256.Sum256(rest), rest[len(rest)-1] != '\n'}
		}
		break
	}
	return out, nil
}

// lastRecord finds the last whole record and returns what stands behind it.
func lastRecord(data []byte, last *link) (rest []byte, found bool) {
	for stop := bytes.LastIndexByte(data, '\n'); stop >= 0; {
		start := bytes.LastIndexByte(data[:stop], '\n') + 1
		if l, ok := parseLink(data[start:stop]); ok && l.sound {
			*last = l.link
			return data[stop+1:], true
		}
		stop = start - 1
	}
	return nil, false
}

// The side file keeps the head while nobody has the log open: logrotate may
// take the whole log away, and the chain goes on all the same.

// keep notes the newest record. A crash, or a disk without room, leaves none:
// then a log that was emptied meanwhile begins a new chain.
func keep(side *os.File, last link) {
	doc, err := json.Marshal(last.head())
	if err != nil || last.seq == 0 {
		return
	}
	if _, err := side.WriteAt(append(doc, '\n'), 0); err != nil {
		_ = side.Truncate(0) // half of it could not be read either
	}
}

// forget takes the note away: with the next record it is out of date.
func (l *Log) forget() {
	if l.kept && l.side.Truncate(0) == nil {
		l.kept = false
	}
}

func readKept(side *os.File) (link, bool) {
	var h Head
	doc, err := io.ReadAll(io.LimitReader(io.NewSectionReader(side, 0, 1<<10), 1<<10))
	if err != nil || json.Unmarshal(doc, &h) != nil || h.check() != nil {
		return link{}, false
	}
	last := link{chain: h.Chain, seq: h.Seq}
	copy(last.hash[:], h.Hash)
	return last, true
}
