package rotator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

const (
	// longestBackoff is how long a loop waits after a failing store, at most:
	// with jitter, one try in ten seconds a cause.
	longestBackoff = 10 * time.Second
	// tickTimeout bounds one tick, so that a store that accepts and never
	// answers is noticed. Generating an RSA key of 4096 bits can take seconds.
	tickTimeout = 60 * time.Second
	// slowTick is how long a tick may take before health says so.
	slowTick = 6 * time.Second
)

// loop is one issuer's.
type loop struct {
	cfg       Config
	file      keyring.Config
	log       *slog.Logger
	schedules schedules
	commands  chan command
	wake      chan struct{}
	retry     chan struct{}
	ended     chan struct{} // closed when run has returned
	guard     *guard

	// Of the loop's goroutine alone.
	mark     mark
	orphans  orphans
	failures int
	// wrote is the write_id of the last manifest that this replica saved.
	wrote string
	// jitter spreads replicas that meet, and the tries of one that fails.
	jitter *rand.Rand
	// sleep waits, at most until ctx ends. The simulator has its own time.
	sleep func(ctx context.Context, d time.Duration) error

	// beat is when the loop last began or ended a tick, in Unix nanoseconds.
	beat atomic.Int64
	// busy is when the tick that runs now began, 0 between ticks.
	busy atomic.Int64

	mu       sync.Mutex // guards what follows
	snapshot *keyring.Snapshot
	readAt   time.Time
	alarms   []keyring.Alarm
}

func newLoop(cfg Config, file keyring.Config) (*loop, error) {
	m, err := openMark(cfg.StateDir, file.Name)
	if err != nil {
		return nil, err
	}
	return &loop{
		cfg: cfg, file: file, log: cfg.Logger.With("issuer", file.Name), schedules: schedules{}, mark: m,
		commands: make(chan command), wake: make(chan struct{}, 1), retry: make(chan struct{}, 1), ended: make(chan struct{}), orphans: orphans{},
		guard: newGuard(cfg.Now, cfg.StoreClock), jitter: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		sleep: sleep,
	}, nil
}

// alive reports a loop that has stopped turning: no tick takes longer than its
// timeout, and no sleep longer than the sync interval or the backoff.
func (l *loop) alive(now time.Time) error {
	beat := l.beat.Load()
	if silent := now.Sub(time.Unix(0, beat)); beat != 0 && silent > tickTimeout+longestBackoff+2*l.syncInterval() {
		return fmt.Errorf("issuer %q: its loop has not turned for %s", l.file.Name, silent.Round(time.Second))
	}
	return nil
}

func (l *loop) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// run ticks until ctx ends: at the next deadline, at the sync interval,
// whichever is first, so that a suspended machine or a stepped clock is noticed.
func (l *loop) run(ctx context.Context) {
	defer close(l.ended)
	l.recall()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var cmd *command
		select {
		case <-ctx.Done():
			return
		case c := <-l.commands:
			cmd = &c
		case <-l.wake:
			if l.failures > 0 {
				continue // the store is failing: its backoff decides
			}
		case <-l.retry:
		case <-timer.C:
		}
		timer.Reset(l.tick(ctx, cmd))
	}
}

// recall hands on what the mark remembers: consumers are served while the
// store is still being reached. The signer will not sign without its keys. A
// clock that is before what it has seen, or a lease that no sound clock would
// have set, shows that the mark or this clock is wrong: then the store must
// speak first, and until it does the mark only keeps the replica from going back.
func (l *loop) recall() {
	s, now := l.mark.snapshot, l.guard.now().Wall
	if s == nil || s.LeaseFault(now) || now.Before(s.WrittenAt.Add(-time.Duration(s.Config.ClockSkew))) {
		return
	}
	l.mu.Lock()
	l.snapshot = s
	l.mu.Unlock()
	l.cfg.Accept(l.file.Name, s)
}

// tick is one reconcile and returns how long to sleep.
func (l *loop) tick(ctx context.Context, cmd *command) time.Duration {
	began := time.Now().UnixNano()
	l.beat.Store(began)
	l.busy.Store(began)
	defer func() {
		l.busy.Store(0)
		l.beat.Store(time.Now().UnixNano())
	}()
	bounded, cancel := context.WithTimeout(ctx, tickTimeout)
	defer cancel()
	if l.mark.unkept != nil { // again, also while the store is away
		l.keepMark(l.mark.snapshot)
	}
	out, err := l.reconcile(bounded, cmd)
	if ctx.Err() != nil {
		cmd.fail(keyring.ErrUnavailable)
		return time.Hour // run ends
	}
	now := l.guard.now().Wall
	if err != nil {
		out.Alarms = l.foreseen(now)
	}
	l.setAlarms(append(out.Alarms, l.mark.alarms(l.file.Name, now)...), err, now)
	if err != nil {
		cmd.fail(err)
		l.failures++
		return l.backoff()
	}
	// Whatever has not answered a command yet: it ran out of passes.
	cmd.fail(fmt.Errorf("other replicas wrote first each time: %w", keyring.ErrUnavailable))
	l.failures = 0
	sleep := l.syncInterval()
	if !out.Wake.IsZero() {
		sleep = min(sleep, max(out.Wake.Sub(now), 5*time.Millisecond))
	}
	return sleep
}

// foreseen are the alarms that follow from the manifest as it was last read,
// while the store cannot be: a rotation that is overdue is so all the same.
func (l *loop) foreseen(now time.Time) []keyring.Alarm {
	l.mu.Lock()
	s := l.snapshot
	l.mu.Unlock()
	if s == nil || !l.cfg.Advance {
		return nil
	}
	in := l.observed()
	in.Now = now
	return keyring.Plan(s, in).Alarms
}

func (l *loop) backoff() time.Duration {
	wait := l.syncInterval() << min(l.failures-1, 10)
	if wait > longestBackoff || wait <= 0 {
		wait = longestBackoff
	}
	return wait*9/10 + time.Duration(l.jitter.Int64N(int64(wait/5+1)))
}

func (l *loop) syncInterval() time.Duration {
	cfg := l.config()
	return time.Duration(cfg.SyncInterval)
}

// config is the configuration in force as far as this replica knows.
func (l *loop) config() keyring.Config {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.snapshot != nil {
		return l.snapshot.Config
	}
	return l.file
}

// skew is E. It is asked for every token.
func (l *loop) skew() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.snapshot != nil {
		return time.Duration(l.snapshot.Config.ClockSkew)
	}
	return time.Duration(l.file.ClockSkew)
}

// hasRing reports a ring that is in force, or whose keys are still here.
func (l *loop) hasRing(name string) bool {
	cfg := l.config()
	if _, ok := cfg.Ring(name); ok {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot != nil && slices.ContainsFunc(l.snapshot.Keys, func(k keyring.Key) bool { return k.Ring == name })
}

// trustsKey reports a key that is not revoked.
func (l *loop) trustsKey(kid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.snapshot == nil {
		return false
	}
	if k := l.snapshot.Key(kid); k != nil {
		return k.Revoked.IsZero()
	}
	return slices.ContainsFunc(l.snapshot.Adopted, func(a keyring.Adopted) bool { return a.JWK.Kid == kid && a.Revoked.IsZero() })
}

func (l *loop) hasKey(kid string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot != nil && (l.snapshot.Key(kid) != nil ||
		slices.ContainsFunc(l.snapshot.Adopted, func(a keyring.Adopted) bool { return a.JWK.Kid == kid }))
}

func (l *loop) status() Status {
	l.mu.Lock()
	s := Status{Snapshot: l.snapshot, ReadAt: l.readAt, Alarms: l.alarms}
	l.mu.Unlock()
	if stuck, ok := l.stuck(time.Now()); ok && findAlarm(s.Alarms, stuck) == nil {
		s.Alarms = append(slices.Clone(s.Alarms), stuck)
	}
	return s
}

// stuck is the alarm for a tick that takes long: a store that accepts and does
// not answer is told before the tick gives up on it.
func (l *loop) stuck(now time.Time) (keyring.Alarm, bool) {
	busy := l.busy.Load()
	if busy == 0 || now.Sub(time.Unix(0, busy)) < slowTick {
		return keyring.Alarm{}, false
	}
	since := time.Unix(0, busy)
	return keyring.Alarm{Code: "store_unavailable", Issuer: l.file.Name, Since: since,
		Message: fmt.Sprintf("the store has been working on one step for %s; it is waited for", now.Sub(since).Round(time.Second))}, true
}

// setAlarms replaces the alarms, keeps since when each has been true, and logs
// what came and what went.
func (l *loop) setAlarms(alarms []keyring.Alarm, err error, now time.Time) {
	if err != nil {
		alarms = append(alarms, l.errorAlarm(err, now))
	}
	l.mu.Lock()
	before := l.alarms
	for i := range alarms {
		if old := findAlarm(before, alarms[i]); old != nil {
			alarms[i].Since = old.Since
		}
	}
	l.alarms = alarms
	l.mu.Unlock()
	for _, a := range alarms {
		if findAlarm(before, a) == nil {
			level := slog.LevelWarn
			if a.Code == "no_active_key" {
				level = slog.LevelInfo // every ring begins like this
			}
			l.log.Log(context.Background(), level, "alarm raised", "code", a.Code, "ring", a.Ring, "kid", a.Kid, "reason", a.Message)
		}
	}
	for _, a := range before {
		if findAlarm(alarms, a) == nil {
			l.log.Info("alarm cleared", "code", a.Code, "ring", a.Ring, "kid", a.Kid)
		}
	}
}

func findAlarm(list []keyring.Alarm, a keyring.Alarm) *keyring.Alarm {
	for i := range list {
		if list[i].Code == a.Code && list[i].Ring == a.Ring && list[i].Kid == a.Kid {
			return &list[i]
		}
	}
	return nil
}

// errorAlarm says why the loop could not do its work.
func (l *loop) errorAlarm(err error, now time.Time) keyring.Alarm {
	a := keyring.Alarm{Code: "store_unavailable", Issuer: l.file.Name, Since: now, Message: err.Error()}
	switch {
	case errors.Is(err, errBehind):
		a.Code = "manifest_behind"
	case errors.Is(err, errLost):
		a.Code = "manifest_missing"
	case errors.Is(err, keyring.ErrCorrupt):
		a.Code = "manifest_corrupt"
	case errors.Is(err, keyring.ErrDenied):
		a.Code = "store_denied"
	}
	if strings.HasPrefix(a.Code, "manifest_") && !strings.Contains(a.Message, "keyturn accept") {
		a.Message += "; on a replica that has seen the manifest before, keyturn accept " + l.file.Name + " puts it back"
	}
	return a
}
