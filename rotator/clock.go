package rotator

import (
	"fmt"
	"sync"
	"time"
)

// Instant is one reading of a host's two clocks.
type Instant struct {
	Wall time.Time
	// Boot is the time since some fixed moment of this run of the host, a
	// suspended machine's sleep included (CLOCK_BOOTTIME). Nobody can set it.
	Boot time.Duration
}

// StoreClock is what the store's own clock said in its last answer.
type StoreClock struct {
	// Date is Vault's, cut to a second.
	Date time.Time
	// Sent and Received are this host's wall clock before and after.
	Sent, Received time.Time
}

// dateResolution is what a Date header leaves out.
const dateResolution = time.Second

// Clock is a reading against both of a host's clocks. Keys leave a set by age
// at Early, leases and serving spans end at Late. While Doubt is true the later
// one may be the wrong one: then what would be taken away for good is judged by
// Boot, the wall clock as the boot clock continues it since it was last confirmed.
// Where it never was, since the process has just started, Boot is Late.
type Clock struct {
	Early, Late, Boot time.Time
	Doubt             bool
}

// guard notices a wall clock that is wrong: one that differs from the store's,
// or that jumped against the boot clock since the store was last read. The
// store's word confirms it again; where the store has no clock, a restart does.
type guard struct {
	now   func() Instant
	store func() (StoreClock, bool)

	mu     sync.Mutex // guards what follows
	anchor Instant    // the last reading that nothing spoke against; at first that of the start
	// confirmed says that the store's clock has agreed with one of the anchors.
	confirmed bool
	fault     string // what the store's clock says against this one
}

func newGuard(now func() Instant, store func() (StoreClock, bool)) *guard {
	return &guard{now: now, store: store, anchor: now()}
}

// read holds the clock against an answer of the store; asked is the reading
// before it was asked, skew is E. Only a quick answer confirms a clock: within a
// slow one any clock could be right, and this one could have been set.
func (g *guard) read(asked Instant, skew time.Duration) {
	now := g.now()
	took := now.Boot - asked.Boot
	s, ok := g.store()
	// The store's last answer may be to another question, which took longer.
	quick := took <= skew && (now.Wall.Sub(asked.Wall)-took).Abs() <= skew && !s.Sent.Before(asked.Wall)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = ""
	switch {
	case ok && s.Received.Before(s.Date.Add(-skew)):
		g.fault = fmt.Sprintf("this host's clock is %s behind the store's, and clock_skew is %s", s.Date.Sub(s.Received).Round(time.Second), skew)
	case ok && s.Sent.After(s.Date.Add(dateResolution+skew)):
		g.fault = fmt.Sprintf("this host's clock is %s ahead of the store's, and clock_skew is %s", s.Sent.Sub(s.Date).Round(time.Second), skew)
	case ok && quick:
		g.anchor, g.confirmed = now, true // whatever it was before
	case ok && !g.confirmed:
		g.fault = fmt.Sprintf("the store took %s to answer, too long to hold this host's clock against its own", took.Round(time.Millisecond))
	case g.jump(now, skew) == "":
		// A store without a clock has nothing to say against the one here.
		g.anchor, g.confirmed = now, g.confirmed || !ok
	}
	if g.fault != "" && quick && !g.confirmed {
		// A process that has just started has no sound reading to go on from: then
		// leases end by the later of both clocks.
		g.anchor = Instant{Wall: s.Date, Boot: now.Boot}
	}
}

// elapsed is the wall clock as the boot clock continues it.
func (g *guard) elapsed(now Instant) time.Time {
	return g.anchor.Wall.Add(now.Boot - g.anchor.Boot)
}

func (g *guard) jump(now Instant, skew time.Duration) string {
	d := now.Wall.Sub(g.elapsed(now))
	if d.Abs() <= skew {
		return ""
	}
	direction := "ahead"
	if d < 0 {
		direction = "back"
	}
	return fmt.Sprintf("this host's clock was set %s by %s since the store was last read", direction, d.Abs().Round(time.Second))
}

// doubt says why the clock cannot be trusted now; empty where it can.
func (g *guard) doubt(skew time.Duration) string {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fault != "" {
		return g.fault
	}
	return g.jump(now, skew)
}

func (g *guard) clock(skew time.Duration) Clock {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	c := Clock{Early: now.Wall, Late: now.Wall, Doubt: g.fault != "" || g.jump(now, skew) != ""}
	c.Boot = g.elapsed(now)
	if c.Boot.Before(c.Early) {
		c.Early = c.Boot
	} else {
		c.Late = c.Boot
	}
	if !g.confirmed { // nothing says that the boot clock went on from a sound reading
		c.Boot = c.Late
	}
	return c
}

// bootless reads the wall clock and Go's monotonic one, which a suspended
// machine stops: for stores and tests that have nothing better.
func bootless() func() Instant {
	start := time.Now()
	return func() Instant {
		now := time.Now()
		return Instant{Wall: now.Round(0), Boot: now.Sub(start)}
	}
}
