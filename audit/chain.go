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

// digest is a SHA-256 as a record shows it, in hexadecimal.
type digest [2 * sha256.Size]byte

func digestOf(data []byte) (d digest) {
	sum := sha256.Sum256(data)
	hex.Encode(d[:], sum[:])
	return d
}

// link is the place of a record in its chain.
type link struct {
	chain string
	seq   uint64
	hash  digest
}

// newChain is the link before the first record: its hash is all zeros.
func newChain() link {
	l := link{chain: rand.Text()[:16]}
	for i := range l.hash {
		l.hash[i] = '0'
	}
	return l
}

// seal completes the record that begins at start in dst, whose brace is not
// closed yet, to a line, and moves the link on to it.
func (l *link) seal(dst []byte, start int) []byte {
	l.seq++
	dst = append(append(dst, chainMember...), l.chain...)
	dst = strconv.AppendUint(append(dst, seqMember...), l.seq, 10)
	dst = append(append(dst, prevMember...), l.hash[:]...)
	dst = append(dst, '"')
	l.hash = digestOf(dst[start:])
	dst = append(append(dst, hashMember...), l.hash[:]...)
	return append(dst, '"', '}', '\n')
}

// The chain's members stand at the end of each line, in this order. Within a
// string a quotation mark is escaped, so no string can look like them.
const (
	chainMember = `,"chain":"`
	seqMember   = `","seq":`
	prevMember  = `,"prev":"`
	hashMember  = `,"hash":"`

	hashTail = len(hashMember) + len(digest{}) + len(`"}`)
	prevTail = len(prevMember) + len(digest{}) + len(`"`)
)

// linked is a line's link, as the line itself has it.
type linked struct {
	link
	prev digest
	// sound: the hash is that of the line.
	sound bool
}

// parseLink reads the chain's members of a line without its newline. It reports
// false where they are not there, or not where they belong.
func parseLink(line []byte) (linked, bool) {
	var none, l linked
	cut := len(line) - hashTail
	if cut < prevTail || !takeDigest(&l.hash, line[cut:], hashMember, `"}`) {
		return none, false
	}
	content := line[:cut]
	rest := content[:cut-prevTail]
	if !takeDigest(&l.prev, content[cut-prevTail:], prevMember, `"`) {
		return none, false
	}
	at := bytes.LastIndex(rest, []byte(chainMember))
	if at < 0 {
		return none, false
	}
	chain, seq, ok := bytes.Cut(rest[at+len(chainMember):], []byte(seqMember))
	if !ok || len(chain) == 0 || len(chain) > 64 || bytes.ContainsAny(chain, "\"\\") || len(seq) == 0 || seq[0] == '0' {
		return none, false
	}
	n, err := strconv.ParseUint(string(seq), 10, 63)
	if err != nil {
		return none, false
	}
	l.chain, l.seq = string(chain), n
	l.sound = digestOf(content) == l.hash
	return l, true
}

func takeDigest(d *digest, text []byte, before, after string) bool {
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
func (l *link) head() Head { return Head{Chain: l.chain, Seq: l.seq, Hash: string(l.hash[:])} }
