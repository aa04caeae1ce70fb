package publisher

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/strictjson"
	"github.com/keyturn/keyturn/keyring"
)

const (
	sideSuffix = ".keyturn"
	lockSuffix = ".keyturn.lock"
	sideFormat = 1
	maxSide    = 4 << 10
)

// side is what a side file says: whose set the file is, and which sets it may
// hold, the oldest first. There are two while the second is being written: the
// digest of the file tells which of them is there.
type side struct {
	Format  int       `json:"format"`
	Issuer  string    `json:"issuer"`
	Lineage string    `json:"lineage"`
	Sets    []sideSet `json:"sets"`
}

// sideSet is one set as it was, or is about to be, written.
type sideSet struct {
	Generation uint64    `json:"generation"`
	ServeUntil time.Time `json:"serve_until"`
	SHA256     string    `json:"sha256"`
}

func (s sideSet) equal(o sideSet) bool {
	return s.Generation == o.Generation && s.SHA256 == o.SHA256 && s.ServeUntil.Equal(o.ServeUntil)
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// held is one of the sets in keyring's words.
func (s *side) held(set sideSet) keyring.Held {
	return keyring.Held{Lineage: s.Lineage, Generation: set.Generation, ServeUntil: set.ServeUntil}
}

// newest is the set that was written last, or was about to be.
func (s *side) newest() sideSet { return s.Sets[len(s.Sets)-1] }

// holding is the set whose bytes have this digest, nil if none has.
func (s *side) holding(sum string) *sideSet {
	for i := range s.Sets {
		if s.Sets[i].SHA256 == sum {
			return &s.Sets[i]
		}
	}
	return nil
}

func encodeSide(s *side) ([]byte, error) {
	doc, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode side file: %w", err)
	}
	return append(doc, '\n'), nil
}

// decodeSide refuses what no keyturn would have written.
func decodeSide(doc []byte) (*side, error) {
	s := new(side)
	if err := strictjson.UnmarshalOpen(doc, s); err != nil {
		return nil, err
	}
	if s.Format != sideFormat {
		return nil, fmt.Errorf("format %d, this keyturn knows %d: run a newer one", s.Format, sideFormat)
	}
	if s.Issuer == "" || s.Lineage == "" || len(s.Sets) < 1 || len(s.Sets) > 2 {
		return nil, errors.New("issuer, lineage or sets are missing")
	}
	for _, set := range s.Sets {
		if sum, err := hex.DecodeString(set.SHA256); err != nil || len(sum) != sha256.Size || set.Generation == 0 || set.ServeUntil.IsZero() {
			return nil, errors.New("a set without generation, serve_until or digest")
		}
	}
	return s, nil
}
