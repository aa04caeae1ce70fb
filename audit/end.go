package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// end is what a file ends in.
type end struct {
	last Link // seq 0 where no record is found
	torn torn
	size int64
}

// torn is what follows the last record of a file without being one: what a
// crash, a power failure or a disk without room left. It is not cut off, for it
// is evidence; the next record tells its length and its digest.
type torn struct {
	bytes int64
	sum   [sha256.Size]byte
	// open: the file has no newline at its end. Where nothing but that was lost,
	// the line is a record all the same.
	open bool
}

// settle begins what is written next with what the end of the file makes
// necessary: the newline, and the record that tells of the damage.
func (t torn) settle(dst []byte, last *Link) []byte {
	if t.open {
		dst = append(dst, '\n')
	}
	if t.bytes == 0 {
		return dst
	}
	start := len(dst)
	dst = appendTime(append(dst, `{"time":`...), time.Now())
	dst = append(append(append(dst, `,"event":"`...), EventTorn...), `","torn_bytes":`...)
	dst = strconv.AppendInt(dst, t.bytes, 10)
	dst = hex.AppendEncode(append(dst, `,"torn_sha256":"`...), t.sum[:])
	return last.seal(append(dst, '"'), start)
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
		tail := data[bytes.LastIndexByte(data, '\n')+1:]
		if l, sound := ParseLink(tail); sound { // but for its newline
			out.last, out.torn.open = l, true
			break
		}
		rest, found := lastRecord(data, &out.last)
		if !found && window < min(out.size, lookBack) {
			continue
		}
		if !found {
			rest = tail
		}
		if len(rest) > 0 {
			out.torn = torn{int64(len(rest)), sha256.Sum256(rest), rest[len(rest)-1] != '\n'}
		}
		break
	}
	return out, nil
}

// lastRecord finds the last record with a newline, and returns what stands behind it.
func lastRecord(data []byte, last *Link) (rest []byte, found bool) {
	for stop := bytes.LastIndexByte(data, '\n'); stop >= 0; {
		start := bytes.LastIndexByte(data[:stop], '\n') + 1
		if l, sound := ParseLink(data[start:stop]); sound {
			*last = l
			return data[stop+1:], true
		}
		stop = start - 1
	}
	return nil, false
}
