package e2e

import (
	"crypto/sha256"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// effect is what a fault may cost. Whatever it may not cost is a failure also
// while it is on.
type effect int

const (
	// noVault: Vault is out of reach. Signing and serving go on within their
	// spans, so only an outage that is long enough excuses anything.
	noVault effect = iota
	// down: the process is dead, stopped, or has not signed since its start.
	down
	// noFile: somebody is at the published file.
	noFile
	// rolling: the replicas' files differ.
	rolling
	// stalled: this machine ran nothing at all.
	stalled
)

const everywhere = -1

// spell is a fault from its beginning to its end.
type spell struct {
	weather *weather
	effect  effect
	replica int // or everywhere
	start   time.Time
	end     time.Time // zero while it lasts
}

// weather knows all spells since the last calm.
type weather struct {
	mu     sync.Mutex
	spells []*spell
}

func (w *weather) begin(e effect, replica int) *spell {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &spell{weather: w, effect: e, replica: replica, start: time.Now()}
	w.spells = append(w.spells, s)
	return s
}

// over ends a spell, once.
func (s *spell) over() {
	s.weather.mu.Lock()
	defer s.weather.mu.Unlock()
	if s.end.IsZero() {
		s.end = time.Now()
	}
}

// clear forgets what is over: from now on nothing is excused by it. It reports
// whether anything still lasts.
func (w *weather) clear() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spells = slices.DeleteFunc(w.spells, func(s *spell) bool { return !s.end.IsZero() })
	return len(w.spells) > 0
}

// touches reports a spell with an effect on a replica that overlaps a span, or
// ended less than grace before.
func (w *weather) touches(e effect, replica int, from, to time.Time, grace time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.spells, func(s *spell) bool {
		return s.effect == e && (s.replica == replica || s.replica == everywhere) &&
			s.start.Before(to) && (s.end.IsZero() || s.end.Add(grace).After(from))
	})
}

// recovery is how long a replica may take to reach Vault again after an outage
// of a length: its tries back off to ten seconds, with jitter.
func recovery(outage time.Duration) time.Duration {
	return min(outage*6/5, 12*time.Second) + 3*time.Second
}

// outage is for how long a replica may have been without Vault at a time, 0 if
// it has it: outages that it may not have recovered from in between are one.
func (w *weather) outage(replica int, at time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	var start, end time.Time // of the outage that is being put together
	sorted := slices.SortedFunc(slices.Values(w.spells), func(a, b *spell) int { return a.start.Compare(b.start) })
	for _, s := range sorted {
		if (s.effect != noVault && s.effect != down) || (s.replica != replica && s.replica != everywhere) || s.start.After(at) {
			continue
		}
		stop := s.end
		if stop.IsZero() || stop.After(at) {
			stop = at
		}
		if start.IsZero() || s.start.After(end.Add(recovery(end.Sub(start)))) {
			start, end = s.start, stop
			continue
		}
		if stop.After(end) {
			end = stop
		}
	}
	if start.IsZero() || at.After(end.Add(recovery(end.Sub(start)))) {
		return 0
	}
	return at.Sub(start)
}

// promptness is how much earlier than its span a replica may give up: a lease
// is renewed with every tick, and a tick takes its time on a busy machine.
const promptness = time.Second

// mayRefuse reports that a replica may refuse to sign within a span of time.
func (w *weather) mayRefuse(replica int, from, to time.Time) bool {
	return w.touches(down, replica, from, to, 0) || w.touches(stalled, everywhere, from, to, 2*time.Second) ||
		w.outage(replica, to) >= chaosB-promptness
}

// mayNotServe is the same for its endpoint, which serves on for the tail.
func (w *weather) mayNotServe(replica int, from, to time.Time, tail time.Duration) bool {
	return w.touches(down, replica, from, to, 0) || w.touches(stalled, everywhere, from, to, 2*time.Second) ||
		w.outage(replica, to) >= chaosB+tail-promptness
}

// fresh reports that a replica has certainly heard of everything that is stored.
func (w *weather) fresh(replica int, at time.Time) bool {
	return w.outage(replica, at) == 0 && !w.touches(stalled, everywhere, at, at.Add(time.Millisecond), 2*time.Second)
}

// watchMachine notices when this machine has no time for what runs on it: no
// daemon can make up for that. It asks for a little work and looks how long it
// takes to be done.
func (w *weather) watchMachine(stop <-chan struct{}, l *ledger) {
	const work, often, most = 5 * time.Millisecond, 250 * time.Millisecond, 8
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-time.After(often):
		}
		began := time.Now()
		for used := threadTime(); threadTime()-used < work; {
			_ = sha256.Sum256(make([]byte, 16<<10))
		}
		now := time.Now()
		if now.Sub(last) > often+most*work {
			l.count("times that this machine was too busy")
			l.add("this machine was too busy, in ms", int(now.Sub(last).Milliseconds()))
			w.mu.Lock()
			w.spells = append(w.spells, &spell{weather: w, effect: stalled, replica: everywhere, start: last, end: now})
			w.mu.Unlock()
		}
		l.most("longest that 5 ms of work took, in ms", now.Sub(began))
		last = now
	}
}

// threadTime is the processor's time that this thread has had.
func threadTime() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	if err := syscall.Getrusage(thread, &u); err != nil {
		return time.Duration(time.Now().UnixNano()) // then nothing is ever found to be busy
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// watchVault notices when Vault is slow though nobody does anything to it.
func (c *chaos) watchVault() {
	const slow = 400 * time.Millisecond
	for c.pause(200 * time.Millisecond) {
		began := time.Now()
		_, err := c.cluster.Front().Client().Logical().Write("canary/bird", map[string]any{"at": began.String()})
		if now := time.Now(); err != nil || now.Sub(began) > slow {
			c.ledger.count("times that Vault was slow or away")
			c.ledger.most("longest write to Vault, in ms", now.Sub(began))
			c.weather.mu.Lock()
			c.weather.spells = append(c.weather.spells, &spell{weather: c.weather, effect: noVault, replica: everywhere, start: began, end: now})
			c.weather.mu.Unlock()
		}
	}
}
