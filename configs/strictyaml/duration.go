package strictyaml

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Duration is a span of time that a file writes with a unit: 90d, 1h30m, 500ms.
// Beyond Go's units there are d of 24 hours and w of 7 d, which come first.
type Duration time.Duration

var (
	longUnits = regexp.MustCompile(`^(?:([0-9]{1,9})w)?(?:([0-9]{1,9})d)?`)
	// bare is what becomes a duration by a unit behind it.
	bare = regexp.MustCompile(`^[0-9]*[1-9][0-9]*(\.[0-9]+)?$`)
)

var errDuration = errors.New("write a number with a unit, such as 90d, 1h30m, 10s or 500ms")

// ParseDuration reads a duration of at most 292 years. Negative ones, and those
// without a unit, are refused; so is 0, which no setting means anything by.
func ParseDuration(s string) (Duration, error) {
	m := longUnits.FindStringSubmatch(s)
	var sum time.Duration
	for _, u := range []struct {
		count string
		unit  time.Duration
	}{{m[1], 7 * 24 * time.Hour}, {m[2], 24 * time.Hour}} {
		if u.count == "" {
			continue
		}
		n, err := strconv.ParseInt(u.count, 10, 64)
		if err != nil || n > int64((math.MaxInt64-sum)/u.unit) {
			return 0, fmt.Errorf("%q is longer than 292 years: %w", s, errDuration)
		}
		sum += time.Duration(n) * u.unit
	}
	rest := s[len(m[0]):]
	if rest == "" && sum > 0 {
		return Duration(sum), nil
	}
	d, err := time.ParseDuration(rest)
	switch {
	case strings.HasPrefix(s, "-"):
		return 0, fmt.Errorf("%q is negative: %w", s, errDuration)
	case s == "0":
		return 0, fmt.Errorf("%q is no time at all: leave the field out for its default", s)
	case err != nil && misplaced(s):
		return 0, fmt.Errorf("%q: w and d come first, in whole numbers, as in 1w2d12h", s)
	case err != nil, strings.HasPrefix(rest, "+"), strings.HasPrefix(rest, "-"), rest == "0":
		return 0, fmt.Errorf("%q is not a duration: %w", s, errDuration)
	case d > math.MaxInt64-sum:
		return 0, fmt.Errorf("%q is longer than 292 years: %w", s, errDuration)
	case sum+d <= 0:
		return 0, fmt.Errorf("%q is no time at all: leave the field out for its default", s)
	}
	return Duration(sum + d), nil
}

// misplaced reports that what is wrong with a duration is where its w and d stand,
// or that they have a fraction.
func misplaced(s string) bool {
	_, err := time.ParseDuration(strings.NewReplacer("d", "h", "w", "h").Replace(s))
	return err == nil
}

// String is the duration as a file writes it: 90d, 1h30m.
func (d Duration) String() string {
	if day := Duration(24 * time.Hour); d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error { return goOn(d.fromNode(n)) }

func (d *Duration) fromNode(n *yaml.Node) (err error) {
	if bare.MatchString(n.Value) && n.ShortTag() != "!!str" {
		return fmt.Errorf("%s has no unit: write %ss, or another of ms, s, m, h, d, w", n.Value, n.Value)
	}
	*d, err = ParseDuration(n.Value)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// IsZero lets yaml leave out what is not set.
func (d Duration) IsZero() bool { return d == 0 }
