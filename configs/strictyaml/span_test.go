package strictyaml

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for in, want := range map[string]time.Duration{
		"90d": 90 * day, "1w": 7 * day, "2w3d4h": 17*day + 4*time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "10s": 10 * time.Second,
		"500ms": 500 * time.Millisecond, "1.5h": 90 * time.Minute, "106751d": 106751 * day, "0d1s": time.Second,
	} {
		if got, err := ParseDuration(in); err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "5", "0", "0s", "0d", "-5s", "+5s", "1h-30m", "5 s", " 5s", "5S", "1.5d", "5d5d", "5d1w", "5h1d", "106752d", "15251w", "999999999w", "106751d24h",
		"99999999999999d", "9999999h", "d", "w", "d5", "1d-1s", "1d+1s", "1d0", "٣s",
	} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", in, got)
		}
	}
}

func TestDurationString(t *testing.T) {
	for in, want := range map[time.Duration]string{
		90 * 24 * time.Hour: "90d", 24 * time.Hour: "1d", 25 * time.Hour: "25h", time.Hour: "1h", 90 * time.Minute: "1h30m", 15 * time.Minute: "15m",
		10 * time.Minute: "10m", 10 * time.Second: "10s", 100 * time.Minute: "1h40m", 2500 * time.Millisecond: "2.5s", 0: "0s", time.Hour + time.Second: "1h0m1s",
	} {
		if got := Duration(in).String(); got != want {
			t.Errorf("String(%d) = %q, want %q", in, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64Min(1).Draw(t, "duration"))
		if got, err := ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("ParseDuration(%q) = %s, %v", d, got, err)
		}
	})
}

func TestDate(t *testing.T) {
	for text, want := range map[string]struct {
		at    time.Time
		shown string
	}{
		"2027-03-01":                   {time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "2027-03-01"},
		"2027-03-01T12:30:00Z":         {time.Date(2027, 3, 1, 12, 30, 0, 0, time.UTC), "2027-03-01T12:30:00Z"},
		"2027-03-01T01:00:00+01:00":    {time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC), "2027-03-01"},
		"2027-03-01T12:30:00.25-05:00": {time.Date(2027, 3, 1, 17, 30, 0, 250e6, time.UTC), "2027-03-01T17:30:00.25Z"},
		"":                             {},
		"2027-3-1":                     {},
		"2027-03-01 12:30:00":          {},
		"2027-03-01T12:30:00":          {},
		"1999-12-31":                   {},
		"2027-02-29":                   {},
		" 2027-03-01":                  {},
	} {
		d, err := ParseDate(text)
		if (err == nil) != !want.at.IsZero() || !d.Time().Equal(want.at) {
			t.Errorf("ParseDate(%q) = %v, %v", text, d.Time(), err)
		}
		if err != nil {
			continue
		}
		if again, err := ParseDate(d.String()); d.String() != want.shown || err != nil || again != d {
			t.Errorf("%q is shown as %q, read back %v", text, d, err)
		}
	}
}
