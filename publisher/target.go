package publisher

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// place is one kind of target. Only its own goroutine calls it.
type place interface {
	// step brings the place as near to the job's snapshot as it can, reads it
	// back, and reports. It returns soon after ctx ends.
	step(ctx context.Context, j job) report
}

// job is what a step works on.
type job struct {
	// snapshot is the latest that was accepted, nil before the first.
	snapshot *keyring.Snapshot
	view     keyring.View
	required bool
	// adoptUntil lets a foreign set be taken over; zero refuses it.
	adoptUntil time.Time
	now        time.Time // the wall clock, for what people read
	clock      Clock
	// readAt is when the store was last read and held nothing newer than
	// snapshot; zero where that is not known.
	readAt time.Time
	// patience is how long a target may stay ahead of the store.
	patience time.Duration
}

// report is what a step did and found.
type report struct {
	// set is what was read back at readAt; a zero readAt means that nothing was.
	set    []keyring.JWK
	readAt time.Time
	// generation is that of the set that was read back, serveUntil how long
	// this replica goes on serving what is there. Zero where nothing says it.
	generation uint64
	serveUntil time.Time
	// changes is when the set changes next by age.
	changes time.Time
	// foreign are keys that stand there and wait for the manifest to adopt them.
	foreign []keyring.JWK
	wrote   bool
	drifted bool
	faults  []fault
}

// fault is one thing that is wrong with a target.
type fault struct {
	code  string
	fatal bool
	err   error
}

// The codes of a target's alarms. They are stable: metrics and health name them.
const (
	// CodeNotPublished: nothing is there yet that consumers could use.
	CodeNotPublished = "not_published"
	// CodePublishFailed: the target could not be written, or not be read back.
	// What was there before is whole.
	CodePublishFailed = "publish_failed"
	// CodePublishRefused: what is there is not ours to replace, or what would
	// be published is no set.
	CodePublishRefused = "publish_refused"
	// CodeTargetAhead: the target holds a newer set than this replica has seen.
	CodeTargetAhead = "target_ahead"
	// CodeTargetDrift: somebody else changed the published file.
	CodeTargetDrift = "target_drift"
	// CodeServeExpired: what was there became too old to serve, and is gone.
	CodeServeExpired = "serve_expired"
	// CodeTakeAwayFailed: what is there is too old to serve and could not be
	// taken away: this host has to leave service.
	CodeTakeAwayFailed = "take_away_failed"
	// CodeConfirmFailed: a confirm URL could not be fetched.
	CodeConfirmFailed = "confirm_failed"
	// CodeConfirmBehind: a confirm URL has shown an old set for longer than
	// any consumer may keep one.
	CodeConfirmBehind = "confirm_behind"
)

func (r *report) fail(code string, fatal bool, err error) {
	r.faults = append(r.faults, fault{code, fatal, err})
}

// target is a place, the goroutine that works on it, and what it found last.
type target struct {
	cfg        *Config
	issuerName string
	issuer     *issuer
	conf       Target
	place      place
	location   string
	kick       chan struct{}
	log        *slog.Logger

	mu    sync.Mutex
	state state
}

// state is what others may see of a target. A new value replaces it as a
// whole; what it refers to is never changed.
type state struct {
	required    bool
	observed    bool
	seen        keyring.Observation
	generation  uint64
	serveUntil  time.Time
	behind      []string
	behindSince time.Time
	foreign     []keyring.JWK
	alarms      []keyring.Alarm
	err         error
}

func (t *target) run(ctx context.Context) {
	failures := 0
	for {
		j := t.job()
		r := t.place.step(ctx, j)
		if ctx.Err() != nil {
			return // what failed because we are stopping is no fault
		}
		t.note(j, r)
		if failures++; len(r.faults) == 0 {
			failures = 0
		}
		timer := time.NewTimer(t.delay(r, failures))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-t.kick:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// job takes the latest snapshot. What the manifest says of the target holds;
// this replica's file speaks for targets that are not in it.
func (t *target) job() job {
	j := job{
		snapshot: t.issuer.latest.Load(), view: t.conf.View, required: t.conf.Required, now: time.Now(),
		clock:    t.cfg.clock(t.issuerName),
		patience: 2*t.cfg.Interval + slowestRead,
	}
	if j.snapshot == nil {
		return j
	}
	if s, at := t.cfg.Read(t.issuerName); s != nil && s.Lineage == j.snapshot.Lineage && s.Generation <= j.snapshot.Generation {
		j.readAt = at
	}
	for _, m := range j.snapshot.Config.Targets {
		if m.Name == t.conf.Name {
			j.view, j.required, j.adoptUntil = m.View, m.Required, m.AdoptUntil
		}
	}
	return j
}

// delay is how long to sleep: until the set changes or ends, until the next
// look, or, after failures in a row, a time that doubles with each, with jitter.
func (t *target) delay(r report, failures int) time.Duration {
	d := t.cfg.Interval
	if failures > 0 {
		longest := t.cfg.Interval // what is on this host is repaired within a look
		if t.conf.Kind == keyring.TargetConfirm {
			longest *= 6
		}
		d = min(longest, max(t.cfg.Interval/16, 50*time.Millisecond)<<min(failures-1, 10))
		d = d/2 + rand.N(d/2+1)
	}
	for _, at := range []time.Time{r.changes, r.serveUntil} {
		if left := time.Until(at); left > 0 && left < d { // adding to the longest Duration would overflow
			d = left + time.Millisecond
		}
	}
	return d
}

// note takes a report into the state and tells whoever wants to know.
func (t *target) note(j job, r report) {
	t.mu.Lock()
	before := t.state
	t.mu.Unlock()

	after := before
	after.required, after.generation, after.serveUntil = j.required, r.generation, r.serveUntil
	after.foreign = r.foreign
	if r.readAt.IsZero() {
		after.generation = before.generation
	} else if j.snapshot != nil {
		after.observed = true
		after.seen = keyring.Observation{At: r.readAt, Kids: shown(j.snapshot, r.set, j.view)}
		after.behind = missing(j.snapshot, j.clock.Early, after.seen.Kids)
	}
	changed := after.observed && (!before.observed || !slices.Equal(before.seen.Kids, after.seen.Kids))
	switch {
	case len(after.behind) == 0:
		after.behindSince = time.Time{}
	case before.behindSince.IsZero():
		after.behindSince = j.now
	}
	r.faults = append(r.faults, t.lagging(j, after)...)
	if r.drifted {
		r.fail(CodeTargetDrift, false, errDrifted)
	}
	after.alarms, after.err = t.raise(before.alarms, r.faults, j.now)

	t.mu.Lock()
	t.state = after
	t.mu.Unlock()

	t.tell(r, before, after, changed)
}

var errDrifted = errors.New("somebody else changed or removed the file or its side file; keyturn writes them again, and nothing else may: find out who did")

// lagging reports a confirm URL that has been behind for longer than
// consumer_cache, which is meant to cover every cache on the way.
func (t *target) lagging(j job, after state) []fault {
	if t.conf.Kind != keyring.TargetConfirm || after.behindSince.IsZero() || j.snapshot == nil {
		return nil
	}
	if j.now.Sub(after.behindSince) <= time.Duration(j.snapshot.Config.ConsumerCache) {
		return nil
	}
	return []fault{{CodeConfirmBehind, false, &behindError{after.behind, after.behindSince}}}
}

// raise turns faults into alarms; one that stands goes on counting from its
// beginning.
func (t *target) raise(before []keyring.Alarm, faults []fault, now time.Time) ([]keyring.Alarm, error) {
	var out []keyring.Alarm
	var errs []error
	for _, f := range faults {
		a := keyring.Alarm{
			Code: f.code, Issuer: t.issuerName, Target: t.conf.Name,
			Message: f.err.Error(), Since: now, Fatal: f.fatal,
		}
		if i := slices.IndexFunc(before, func(b keyring.Alarm) bool { return b.Code == a.Code }); i >= 0 {
			a.Since = before[i].Since
		}
		errs = append(errs, f.err)
		if i := slices.IndexFunc(out, func(b keyring.Alarm) bool { return b.Code == a.Code }); i >= 0 {
			out[i].Message, out[i].Fatal = out[i].Message+"; "+a.Message, out[i].Fatal || a.Fatal
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b keyring.Alarm) int { return strings.Compare(a.Code, b.Code) })
	return out, errors.Join(errs...)
}

// tell logs what changed and calls back. A fault that stands is logged once.
func (t *target) tell(r report, before, after state, changed bool) {
	for _, a := range after.alarms {
		known := func(b keyring.Alarm) bool { return b.Code == a.Code && b.Message == a.Message }
		level := slog.LevelWarn
		if a.Code == CodeNotPublished {
			level = slog.LevelInfo // every start begins like this
		}
		if !slices.ContainsFunc(before.alarms, known) {
			t.log.Log(context.Background(), level, "target is not as it should be", "code", a.Code, "fatal", a.Fatal, "error", a.Message)
		}
	}
	if len(before.alarms) > 0 && len(after.alarms) == 0 {
		t.log.Info("target is well again")
	}
	if r.wrote { // with every renewal of the lease; what consumers see change is told below
		t.log.Debug("key set published", "generation", after.generation, "serve_until", after.serveUntil)
	}
	if changed {
		t.log.Info("key set read back", "kids", after.seen.Kids, "behind", after.behind)
	}
	// One that could not be repaired is counted once, not with every try.
	if r.drifted && (r.wrote || !slices.ContainsFunc(before.alarms, func(a keyring.Alarm) bool { return a.Code == CodeTargetDrift })) {
		t.cfg.Drifted(t.issuerName, t.conf.Name)
	}
	switch {
	case r.failed():
		t.cfg.Observe(t.issuerName, t.conf.Name, false)
	case r.wrote || changed:
		t.cfg.Observe(t.issuerName, t.conf.Name, true)
	}
	if changed || !slices.Equal(before.foreign, after.foreign) {
		t.cfg.Wake()
	}
}

// failed reports whether something was tried and did not succeed. That nothing
// has arrived yet is no failure.
func (r report) failed() bool {
	return slices.ContainsFunc(r.faults, func(f fault) bool {
		return f.code == CodePublishFailed || f.code == CodePublishRefused || f.code == CodeConfirmFailed || f.code == CodeTakeAwayFailed
	})
}

func (t *target) seen() (keyring.Observation, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := t.state.seen
	seen.Kids = slices.Clone(seen.Kids)
	return seen, t.state.observed
}

func (t *target) foreign() []keyring.JWK {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.state.foreign)
}

func (t *target) alarms() []keyring.Alarm {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.alarms
}

func (t *target) status() Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state
	return Status{
		Name: t.conf.Name, Kind: t.conf.Kind, Location: t.location, Required: s.required,
		Generation: s.generation, ReadBackAt: s.seen.At, ServeUntil: s.serveUntil,
		Behind: slices.Clone(s.behind), Err: s.err,
	}
}
