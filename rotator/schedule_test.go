package rotator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/rotator"
)

func utc(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestParseScheduleRefuses(t *testing.T) {
	for _, tc := range []struct{ spec, want string }{
		{"", "five cron fields"},
		{"   ", "five cron fields"},
		{"* * * *", "five cron fields"},
		{"* * * * * * *", "five cron fields"},
		{"60 * * * *", "five cron fields"},
		{"* 24 * * *", "five cron fields"},
		{"* * 0 * *", "five cron fields"},
		{"* * * 13 *", "five cron fields"},
		{"* * * * mon-xyz", "five cron fields"},
		{"*/0 * * * *", "five cron fields"},
		{"@fortnightly", "five cron fields"},
		{"@reboot", "five cron fields"},
		{"TZ=0", "write CRON_TZ= for a time zone"},
		{"TZ=UTC 0 3 * * *", "write CRON_TZ= for a time zone"},
		{"CRON_TZ=UTC", "five cron fields"},
		{"CRON_TZ=", "five cron fields"},
		{"CRON_TZ=Nowhere/Else 0 3 * * *", "bad location"},
		{"CRON_TZ=../../etc/passwd 0 3 * * *", "bad location"},
		{"CRON_TZ=Local 0 3 * * *", "Local is another one on every host"},
		{"@every 0s", "at least 1s"},
		{"@every 999ms", "at least 1s"},
		{"@every -1h", "at least 1s"},
		{"@every soon", "at least 1s"},
		{"@every 3600", "at least 1s"},
		{"CRON_TZ=UTC @every 0s", "at least 1s"},
		{"CRON_TZ=Europe/Berlin  @every 1ms", "at least 1s"},
		{"@every", "five cron fields"},
		{"0 0 31 2 *", "never runs: no such day exists"},
		{"0 0 30 2 *", "never runs"},
		{"0 0 31 4,6,9,11 *", "never runs"},
		{"CRON_TZ=Europe/Berlin 0 0 31 2 *", "never runs"},
	} {
		s, err := rotator.ParseSchedule(tc.spec)
		if err == nil {
			t.Errorf("%q is taken, and runs next at %v", tc.spec, s.Next(utc("2026-01-01T00:00:00Z")))
			continue
		}
		if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "schedule") {
			t.Errorf("%q: %v; want %q", tc.spec, err, tc.want)
		}
	}
}

func TestScheduleNext(t *testing.T) {
	for _, tc := range []struct {
		name, spec string
		times      []string // each the first run after the one before
	}{
		{"Sundays, UTC by default", "0 3 * * 0", []string{"2026-01-01T00:00:00Z", "2026-01-04T03:00:00Z", "2026-01-11T03:00:00Z"}},
		{"not at the run itself", "0 3 * * *", []string{"2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"}},
		{"weekly", "@weekly", []string{"2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"}},
		{"with space around", "  0 3 * * *\t", []string{"2026-01-01T00:00:00Z", "2026-01-01T03:00:00Z"}},
		{"seconds first", "*/20 * * * * *", []string{"2026-01-01T00:00:00Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z", "2026-01-01T00:01:00Z"}},
		{"every 36h", "@every 36h", []string{"2026-01-01T00:00:00Z", "2026-01-02T12:00:00Z", "2026-01-04T00:00:00Z"}},
		{"leap day", "0 0 29 2 *", []string{"2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"}},
		// The clock goes from 02:00 to 03:00 on 29 March: that run is skipped.
		{"DST gap", "CRON_TZ=Europe/Berlin 30 2 * * *", []string{"2026-03-27T12:00:00Z", "2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}},
		// It goes from 03:00 to 02:00 on 25 October: one run, in the first 02:30.
		{"DST overlap", "CRON_TZ=Europe/Berlin 30 2 * * *", []string{"2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"DST overlap, every hour", "CRON_TZ=Europe/Berlin 30 * * * *", []string{"2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"}},
		{"a zone", "CRON_TZ=Asia/Tokyo 0 9 * * *", []string{"2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"}},
		{"a zone without a name is UTC", "CRON_TZ= 0 9 * * *", []string{"2026-01-01T00:00:00Z", "2026-01-01T09:00:00Z"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := rotator.ParseSchedule(tc.spec)
			if err != nil {
				t.Fatal(err)
			}
			for i := 1; i < len(tc.times); i++ {
				// The same instant, told in another zone, gives the same run.
				after := utc(tc.times[i-1]).In(time.FixedZone("elsewhere", -7*3600))
				if got := s.Next(after); !got.Equal(utc(tc.times[i])) || got.Location() != time.UTC {
					t.Errorf("after %s: %v, want %s", tc.times[i-1], got, tc.times[i])
				}
			}
		})
	}
}

func TestShortestGap(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		spec string
		want time.Duration
	}{
		{"* * * * *", time.Minute},
		{"*/20 * * * * *", 20 * time.Second},
		{"0 3 * * 0", 7 * day},
		{"@every 36h", 36 * time.Hour},
		{"@every 36h0m0.9s", 36 * time.Hour}, // whole seconds
		{"@daily", day},
		{"0 4 1 * *", 28 * day},
		{"0 0 1,31 * *", day}, // from the 31st to the 1st
		{"0 0 1,20 * *", 9 * day},
		{"59,0 * * * *", time.Minute},
		{"0 22,1 * * *", 3 * time.Hour},
		{"0 0 29 2 *", 1461 * day},
		{"@yearly", 365 * day},
		{"0 0 1 1,2 *", 31 * day},
		// The clock's hour is missing or doubled once a year.
		{"CRON_TZ=Europe/Berlin 0 3 * * *", 23 * time.Hour},
		{"CRON_TZ=Europe/Berlin 30 1,4 * * *", 2 * time.Hour},
		{"CRON_TZ=UTC 30 1,4 * * *", 3 * time.Hour},
		{"CRON_TZ=Europe/Berlin 30 2 * * *", 24 * time.Hour},
		// Either field of the day: Sundays, and the 1st.
		{"0 3 1 * 0", day},
	} {
		s, err := rotator.ParseSchedule(tc.spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.ShortestGap(); got != tc.want {
			t.Errorf("%q: %v, want %v", tc.spec, got, tc.want)
		}
	}
}

// TestRareScheduleHasALongGap: one that runs once in nine years, and one that
// runs after them.
func TestRareScheduleHasALongGap(t *testing.T) {
	for _, spec := range []string{"@every 70000h", "@every 90000h"} {
		s, err := rotator.ParseSchedule(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.ShortestGap(); got < 8*365*24*time.Hour {
			t.Errorf("%q: %v", spec, got)
		}
	}
}

func TestGaps(t *testing.T) {
	gaps, err := rotator.Gaps(map[string]string{"web": "0 3 * * 0", "api": "@daily"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]time.Duration{"web": 7 * 24 * time.Hour, "api": 24 * time.Hour}, gaps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	gaps, err = rotator.Gaps(map[string]string{"web": "0 3 * * 0", "no": "", "bad": "x", "never": "0 0 31 2 *"})
	if err == nil || len(gaps) != 1 {
		t.Fatalf("gaps %v, %v", gaps, err)
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{`ring "bad": schedule "x"`, `ring "never": schedule "0 0 31 2 *" never runs`, `ring "no": no schedule`} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d of %q, want %q", i, lines, want)
		}
	}
}

func FuzzParseSchedule(f *testing.F) {
	for _, spec := range []string{
		"0 3 * * 0", "TZ=0", "CRON_TZ=UTC", "CRON_TZ= ", "@every 0s", "CRON_TZ=UTC @every 1h", "0 0 31 2 *", "*/20 * * * * *",
		"@weekly", "@every 2540400h", "1-5/2,7 ? L * MON-FRI", "CRON_TZ=Europe/Berlin 30 2 * * *", "* * * * 0-7", "\x00", "@", "=",
	} {
		f.Add(spec)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		s, err := rotator.ParseSchedule(spec)
		if err != nil {
			if !strings.Contains(err.Error(), "schedule") {
				t.Fatalf("%q: the error does not say what it is about: %v", spec, err)
			}
			return
		}
		now := utc("2026-01-01T00:00:00Z")
		next := s.Next(now)
		if !next.IsZero() && !next.After(now) {
			t.Fatalf("%q runs next at %v, which is not after %v", spec, next, now)
		}
		if gap := s.ShortestGap(); gap < time.Second {
			t.Fatalf("%q has a gap of %v", spec, gap)
		}
	})
}
