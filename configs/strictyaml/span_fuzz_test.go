package strictyaml

import (
	"strings"
	"testing"
	"time"
)

// FuzzParseDuration: what is taken as a duration is more than nothing, is
// written in a way that reads as the same, and has a unit.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"90d", "1w2d3h", "1h30m", "500ms", "0", "-1h", "+5s", "1.5h", "999999999w", "10", "1d-1h", "1e3s", "٣s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if d <= 0 || strings.Trim(s, "0123456789.") == "" {
			t.Fatalf("%q was taken as %d", s, d)
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%q is %d, written as %s, which is %d (%v)", s, d, d, back, err)
		}
	})
}

// FuzzParseDate: what is taken as a date is written in a way that reads as the
// same instant.
func FuzzParseDate(f *testing.F) {
	for _, s := range []string{"2027-03-01", "2027-03-01T12:00:00+01:00", "2027-02-29", "1999-12-31", "9999-12-31T23:59:59-23:59", "2027-03-01T12:00:00.000000001Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDate(s)
		if err != nil {
			return
		}
		if y := d.Time().Year(); y < 2000 || y > 9999 || d.Time().Location() != time.UTC {
			t.Fatalf("%q was taken as %s", s, d)
		}
		if back, err := ParseDate(d.String()); err != nil || !back.Equal(d) {
			t.Errorf("%q is written as %s, which is %s (%v)", s, d, back, err)
		}
	})
}
