package daemon

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/publisher"
	"github.com/keyturn/keyturn/rotator"
)

// The rotator's guard reads the clocks of this host and of the store; signer
// and publisher ask it, since a lease and a key's leaving follow from the same
// reading.

// bootFor is how long a reading of the boot clock is carried on by the
// monotonic one, which is ten times as cheap to read: each token is held against
// it twice. Only a machine that was suspended within the last millisecond of
// its time awake could tell the difference, and one that is suspended just after
// the reading tells none.
const bootFor = time.Millisecond

// bootClock reads the wall clock beside CLOCK_BOOTTIME, which counts while the
// machine sleeps and which nobody can set. Where the kernel keeps it back it is
// nil: then the rotator takes Go's monotonic clock.
func (d *daemon) bootClock() func() rotator.Instant {
	var at unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &at); err != nil {
		d.log.Warn("no boot clock: a suspended machine is noticed by the store's clock only", "error", err)
		return nil
	}
	var last atomic.Pointer[bootReading]
	return func() rotator.Instant {
		now := time.Now()
		r := last.Load()
		if r == nil || now.Sub(r.at) > bootFor {
			var at unix.Timespec
			_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &at) // it has answered before, and has no other reason to fail
			r = &bootReading{at: now, boot: time.Duration(at.Nano())}
			last.Store(r)
		}
		// Round takes Go's monotonic reading away, which would hide a step of the
		// wall clock.
		return rotator.Instant{Wall: now.Round(0), Boot: r.boot + now.Sub(r.at)}
	}
}

// bootReading is what the boot clock said when the monotonic one said at.
type bootReading struct {
	at   time.Time
	boot time.Duration
}

func storeClock(s *vaultsession.Session) func() (rotator.StoreClock, bool) {
	return func() (rotator.StoreClock, bool) {
		date, sent, received, ok := s.StoreClock()
		return rotator.StoreClock{Date: date, Sent: sent, Received: received}, ok
	}
}

func (d *daemon) clock(issuer string) publisher.Clock {
	c := d.rotator.Clock(issuer)
	out := publisher.Clock{Early: c.Early, Late: c.Late, Away: c.Late}
	if c.Doubt {
		out.Away = c.Boot
	}
	return out
}

func (d *daemon) late(issuer string) time.Time { return d.rotator.Clock(issuer).Late }

// damaged are the keys whose private halves the signer could not use.
func (d *daemon) damaged(issuer string) []string {
	if d.signer == nil {
		return nil
	}
	return d.signer.Damaged(issuer)
}

// retry follows a login: what waited for the store does not wait any longer.
func (d *daemon) retry() {
	d.rotator.Retry()
	if d.signer != nil {
		d.signer.Retry()
	}
}
