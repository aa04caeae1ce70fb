package strictyaml

import (
	"errors"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// Date is an instant that a file writes as 2027-03-01, its beginning in UTC, or
// with a time of day as RFC 3339 has it: 2027-03-01T12:00:00+01:00.
type Date time.Time

var errDate = errors.New("write 2027-03-01, which begins at midnight UTC, or 2027-03-01T12:00:00Z")

// ParseDate reads a date. Years before 2000 and after 9999 are typing errors.
func ParseDate(s string) (Date, error) {
	at, err := time.Parse(time.DateOnly, s)
	if err != nil {
		at, err = time.Parse(time.RFC3339, s)
	}
	if at = at.UTC(); err != nil || at.Year() < 2000 || at.Year() > 9999 {
		return Date{}, fmt.Errorf("%q is not a date: %w", s, errDate)
	}
	return Date(at), nil
}

// Time is the instant, in UTC.
func (d Date) Time() time.Time { return time.Time(d) }

// Equal reports whether two are the same instant.
func (d Date) Equal(other Date) bool { return d.Time().Equal(other.Time()) }

// String is the date as a file writes it.
func (d Date) String() string {
	at := time.Time(d)
	if at.Equal(at.Truncate(24 * time.Hour)) {
		return at.Format(time.DateOnly)
	}
	return at.Format(time.RFC3339Nano)
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Date) UnmarshalYAML(n *yaml.Node) error { return goOn(d.fromNode(n)) }

func (d *Date) fromNode(n *yaml.Node) (err error) {
	*d, err = ParseDate(n.Value)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (d Date) MarshalYAML() (any, error) { return d.String(), nil }

// IsZero lets yaml leave out what is not set.
func (d Date) IsZero() bool { return time.Time(d).IsZero() }
