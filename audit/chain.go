package audit

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"time"
)

// Head is the newest record of a chain, or one that was the newest at a time.
type Head struct {
	// Chain is the random name that a log got with its first record.
	Chain string `json:"chain"`
	// Seq counts the records of a chain from 1.
	Seq uint64 `json:"seq"`
	// Hash is that of the record, 64 hexadecimal digits.
	Hash string `json:"hash"`
	// Time is when the head was taken.
	Time time.Time `json:"time,omitzero"`
	// File is the path of the log, for people.
	File string `json:"file,omitempty"`
}

// Digest is a SHA-256 as a record shows it, in hexadecimal.
type Digest [2 * sha256.Size]byte

func digestOf(data []byte) (d Digest) {
	sum := sha256.Sum256(data)
	hex.Encode(d[:], sum[:])
	return d
}

// Link is the place of a record in its chain, as the end of its line has it.
type Link struct {
	Chain string
	Seq   uint64 // from 1; 0 is no record
	// Prev is the hash of the record before, all zeros in the first.
	Prev, Hash Digest
}

// newChain is the link before the first record: its hash is all zeros.
func newChain() Link {
	l := Link{Chain: rand.Text()[:16]}
	for i := range l.Hash {
		l.Hash[i] = '0'
	}
	return l
}

// seal completes the record that begins at start in dst, whose brace is not
// closed yet, to a line, and moves the link on to it.
func (l *Link) seal(dst []byte, start int) []byte {
	l.Seq++
	l.Prev = l.Hash
	dst = append(append(dst, chainMember...), l.Chain...)
	dst = strconv.AppendUint(append(dst, seqMember...), l.Seq, 10)
	dst = append(append(dst, prevMember...), l.Prev[:]...)
	dst = append(dst, '"')
	l.Hash = digestOf(dst[start:])
	dst = append(append(dst, hashMember...), l.Hash[:]...)
	return append(dst, '"', '}', '\n')
}

// The chain's members stand at the end of each line, in this order. Within a
// string a quotation mark is escaped, so no string can look like them.
const (
	chainMember = `,"chain":"`
	seqMember   = `","seq":`
	prevMember  = `,"prev":"`
	hashMember  = `,"hash":"`

	hashTail = len(hashMember) + len(Digest{}) + len(`"}`)
	prevTail = len(prevMember) + len(Digest{}) + len(`"`)
)

// ParseLink reads the chain's members of a line without its newline; sound
// reports that the line has the hash that it tells. The seq is 0 where the
// members are not there, or not where they belong.
func ParseLink(line []byte) (l Link, sound bool) {
	cut := len(line) - hashTail
	if cut < prevTail || !takeDigest(&l.Hash, line[cut:], hashMember, `"}`) {
		return Link{}, false
	}
	content := line[:cut]
	rest := content[:cut-prevTail]
	if !takeDigest(&l.Prev, content[cut-prevTail:], prevMember, `"`) {
		return Link{}, false
	}
	at := bytes.LastIndex(rest, []byte(chainMember))
	if at < 0 {
		return Link{}, false
	}
	chain, seq, ok := bytes.Cut(rest[at+len(chainMember):], []byte(seqMember))
	if !ok || len(chain) == 0 || len(chain) > 64 || bytes.ContainsAny(chain, "\"\\") || len(seq) == 0 || seq[0] == '0' {
		return Link{}, false
	}
	n, err := strconv.ParseUint(string(seq), 10, 63)
	if err != nil {
		return Link{}, false
	}
	l.Chain, l.Seq = string(chain), n
	return l, digestOf(content) == l.Hash
}

func takeDigest(d *Digest, text []byte, before, after string) bool {
	middle, ok := bytes.CutPrefix(text, []byte(before))
	if !ok {
		return false
	}
	if middle, ok = bytes.CutSuffix(middle, []byte(after)); !ok || len(middle) != len(d) {
		return false
	}
	for _, c := range middle {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	copy(d[:], middle)
	return true
}

// head is the link as others see it.
func (l *Link) head() Head { return Head{Chain: l.Chain, Seq: l.Seq, Hash: string(l.Hash[:])} }
