package verify

import (
	"time"

	"github.com/keyturn/keyturn/audit"
)

// Kind says what happened to records.
type Kind string

// The kinds of damage.
const (
	Changed    Kind = "changed"    // a record, or a line in its place, is not what was written
	Dropped    Kind = "dropped"    // records are missing before another
	Reordered  Kind = "reordered"  // records stand before one that they follow
	Duplicated Kind = "duplicated" // records stand there twice
	Inserted   Kind = "inserted"   // a record, or a line, that the chain does not hold
	Truncated  Kind = "truncated"  // records are missing at the end
	Replaced   Kind = "replaced"   // the anchored chain is not there at all
)

// Damage is something that no crash does.
type Damage struct {
	Kind Kind   `json:"kind"`
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
	// Seq is the record's, 0 where it is not known.
	Seq     uint64 `json:"seq,omitempty"`
	Message string `json:"message"`

	pos int // where it was met, for sorting
}

// ChainReport is one chain, as far as the files hold it.
type ChainReport struct {
	Chain   string `json:"chain"`
	Records uint64 `json:"records"`
	// From is the first record's seq. Where it is not 1, older files are not here.
	From      uint64     `json:"from"`
	FirstTime time.Time  `json:"first_time,omitzero"`
	LastTime  time.Time  `json:"last_time,omitzero"`
	Head      audit.Head `json:"head"`
	// Anchored is the newest head that was kept elsewhere and is in the files.
	// What follows it could be rewritten by who can write the file.
	Anchored *audit.Head `json:"anchored,omitempty"`
}

// Report is what Files found.
type Report struct {
	// Files in the order in which they were read.
	Files   []string      `json:"files"`
	Records uint64        `json:"records"`
	Chains  []ChainReport `json:"chains"`
	Damages []Damage      `json:"damages"`
	// Notes are no damage, but what a reader has to know.
	Notes []string `json:"notes"`
}

// OK reports that nothing is damaged.
func (r *Report) OK() bool { return len(r.Damages) == 0 }
