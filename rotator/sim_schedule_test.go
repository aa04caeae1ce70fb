package rotator

import (
	"testing"
	"time"
)

// TestSimYear is fault 29: a year of runs of a schedule, through both changes
// of the clock and a leap day, met at every step as the loop meets them: what
// is due is what Next says of the last activation. Each run happens once.
func TestSimYear(t *testing.T) {
	for _, tc := range []struct {
		spec string
		from time.Time
		want int // runs in the year
	}{
		// 29 October 2023, 03:00 → 02:00: 02:30 comes twice and runs once.
		// 26 March, 02:00 → 03:00: 02:30 does not come, and does not run.
		{"CRON_TZ=Europe/Berlin 30 2 * * *", time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), 364},
		{"CRON_TZ=Europe/Berlin 30 4 * * *", time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), 365},
		{"CRON_TZ=America/New_York 30 1 * * *", time.Date(2024, 1, 1, 5, 0, 0, 0, time.UTC), 366},
		{"0 3 29 2 *", time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), 1},
		{"0 3 29 2 *", time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		{"0 3 * * 0", time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC), 52},
	} {
		s, err := ParseSchedule(tc.spec)
		if err != nil {
			t.Fatal(err)
		}
		end := tc.from.AddDate(1, 0, 0)
		runs, activated, due := 0, tc.from, s.Next(tc.from)
		for now := tc.from; now.Before(end); now = now.Add(7 * time.Minute) { // a slow loop
			if !due.IsZero() && !now.Before(due) {
				if gap := now.Sub(activated); runs > 0 && gap < 20*time.Hour {
					t.Errorf("%s: a run at %s, %s after the last", tc.spec, now, gap)
				}
				runs, activated, due = runs+1, now, s.Next(now)
			}
		}
		if runs != tc.want {
			t.Errorf("%s from %s: %d runs, want %d", tc.spec, tc.from.Format(time.DateOnly), runs, tc.want)
		}
	}
	for _, never := range []string{"0 3 30 2 *", "0 3 31 4 *"} {
		if _, err := ParseSchedule(never); err == nil {
			t.Errorf("%s is taken, and never runs", never)
		}
	}
}
