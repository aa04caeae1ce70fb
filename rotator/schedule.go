package rotator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Schedule is a parsed cron expression.
type Schedule struct {
	spec string
	next cron.Schedule
}

var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseSchedule reads a cron expression: five fields, or six with seconds
// first, or @weekly and its like, or "@every 36h". It means UTC unless it
// begins with CRON_TZ=. It refuses what never runs.
func ParseSchedule(spec string) (s Schedule, err error) {
	defer func() {
		// The parser panics on some malformed time zones.
		if r := recover(); r != nil {
			err = fmt.Errorf("schedule %q: malformed; five cron fields, such as \"0 3 * * 0\"", spec)
		}
	}()
	text := strings.TrimSpace(spec)
	if strings.HasPrefix(text, "TZ=") {
		return Schedule{}, fmt.Errorf("schedule %q: write CRON_TZ= for a time zone", spec)
	}
	zone, fields := "CRON_TZ=UTC", text
	if strings.HasPrefix(text, "CRON_TZ=") {
		zone, fields, _ = strings.Cut(text, " ")
		fields = strings.TrimSpace(fields)
	}
	if zone == "CRON_TZ=Local" {
		return Schedule{}, fmt.Errorf("schedule %q: name the time zone: Local is another one on every host", spec)
	}
	if every, ok := strings.CutPrefix(fields, "@every "); ok {
		if d, err := time.ParseDuration(strings.TrimSpace(every)); err != nil || d < time.Second {
			return Schedule{}, fmt.Errorf("schedule %q: @every takes a duration of at least 1s, such as 36h", spec)
		}
	}
	parsed, err := parser.Parse(zone + " " + fields)
	if err != nil {
		return Schedule{}, fmt.Errorf("schedule %q: %w; five cron fields, such as \"0 3 * * 0\"", spec, err)
	}
	s = Schedule{spec, parsed}
	if s.Next(gapsFrom).IsZero() {
		return Schedule{}, fmt.Errorf("schedule %q never runs: no such day exists", spec)
	}
	return s, nil
}

// Next is the first run after a time, in UTC; zero for never. Where the clock
// of its zone is put back, a run in the doubled hour happens once; where it is
// put forward, one in the missing hour does not.
func (s Schedule) Next(after time.Time) time.Time {
	next := s.next.Next(after.UTC())
	for !next.IsZero() && s.repeated(next) {
		next = s.next.Next(next)
	}
	if next.IsZero() {
		return time.Time{}
	}
	return next.UTC()
}

// repeated reports a run in an hour that the clock of the schedule's zone goes
// through a second time: one that names its hours has run in the first.
func (s Schedule) repeated(run time.Time) bool {
	spec, ok := s.next.(*cron.SpecSchedule)
	const everyHour = 1<<24 - 1
	if !ok || spec.Hour&everyHour == everyHour {
		return false
	}
	run = run.In(spec.Location)
	since, _ := run.ZoneBounds()
	if since.IsZero() {
		return false
	}
	_, now := run.Zone()
	_, before := since.Add(-time.Second).Zone()
	return run.Sub(since) < time.Duration(before-now)*time.Second
}

// The runs that ShortestGap looks at: a start that is the same on every
// machine, and far enough to meet leap days and changes of the clock.
var (
	gapsFrom  = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	gapsUntil = gapsFrom.AddDate(9, 0, 0)
)

const gapsRuns = 20_000

// ShortestGap is the shortest time between two runs. A schedule that runs once
// in nine years has no gap: the whole span is returned.
func (s Schedule) ShortestGap() time.Duration {
	shortest := gapsUntil.Sub(gapsFrom)
	last := s.Next(gapsFrom)
	for range gapsRuns {
		next := s.Next(last)
		if next.IsZero() || next.After(gapsUntil) {
			break
		}
		shortest = min(shortest, next.Sub(last))
		last = next
	}
	return shortest
}

// schedules parses each expression once.
type schedules map[string]Schedule

// next is keyring's NextRun: zero for an expression that cannot be parsed. Such
// a one is refused at load, so only a newer keyturn can have put it in force.
func (m schedules) next(spec string, after time.Time) time.Time {
	s, ok := m[spec]
	if !ok {
		var err error
		if s, err = ParseSchedule(spec); err != nil {
			return time.Time{}
		}
		m[spec] = s
	}
	return s.Next(after)
}

var errNoSchedule = errors.New("no schedule")

// Gaps parses the schedules of rings, by name, and returns the shortest gap of
// each, all faults at once.
func Gaps(specs map[string]string) (map[string]time.Duration, error) {
	gaps := make(map[string]time.Duration, len(specs))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(specs)) {
		spec := specs[name]
		if spec == "" {
			errs = append(errs, fmt.Errorf("ring %q: %w", name, errNoSchedule))
			continue
		}
		s, err := ParseSchedule(spec)
		if err != nil {
			errs = append(errs, fmt.Errorf("ring %q: %w", name, err))
			continue
		}
		gaps[name] = s.ShortestGap()
	}
	return gaps, errors.Join(errs...)
}
