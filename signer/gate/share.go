package gate

import "time"

const (
	// activeFor is how long a user counts as active after he asked or was served.
	activeFor = 100 * time.Millisecond
	// backlog is how long a user has had a queue, without a break, when he is
	// held to his part of the slots' time: a burst ends sooner.
	backlog = 10 * time.Millisecond
	// part is the part that he gets, one in six. A turn is about a third of the
	// work that a request is to the daemon, to the kernel and to its caller, so of
	// the machine it is half. With one in four, others waited several times as
	// long at the 90th percentile (2 processors, ES256); with one in eight not less.
	part = 6
	// stint is how far he may be ahead of his part before he rests.
	stint = 200 * time.Microsecond
)

// others reports whether another user is active. The caller holds mu.
func (t *Turns) others(u *user, now time.Duration) bool {
	other := t.newest
	if other == u {
		other = u.older
	}
	return other != nil && now-other.active <= activeFor
}

// backlogged reports whether the user has had a queue for a while.
func (u *user) backlogged(now time.Duration) bool {
	return u.waiting > 0 && now-u.queued > backlog
}

// guests reports whether another user is active who asks for less than he could
// get: there is nothing to keep free for those who have a queue themselves. It
// looks at some users only. The caller holds mu.
func (t *Turns) guests(u *user, now time.Duration) bool {
	other := t.newest
	for range 8 {
		if other == nil || now-other.active > activeFor {
			return false
		}
		if other != u && !other.backlogged(now) {
			return true
		}
		other = other.older
	}
	return false
}

// most is how many slots the user may have now. The caller holds mu.
func (t *Turns) most(u *user, now time.Duration) int {
	if t.slots == 1 || !t.others(u, now) {
		return t.slotsOfOne
	}
	return min(t.slotsOfOne, t.slots-1)
}

// charge counts a turn of a user with a queue against his part, while he has to
// keep to it. The caller holds mu.
func (t *Turns) charge(u *user, held, now time.Duration) {
	if !u.backlogged(now) || !t.guests(u, now) {
		return
	}
	u.owes = max(u.owes, now-held) + held*part/time.Duration(t.slots)
	if u.owes-now > stint {
		u.rests = u.owes
	}
}

// resting reports whether the user has to wait although there is a slot, and
// sees to it that somebody looks again. The caller holds mu.
func (t *Turns) resting(u *user, now time.Duration) bool {
	if now >= u.rests || !u.backlogged(now) || !t.guests(u, now) {
		return false
	}
	// Where the others are idle before it is over, he need not rest to the end.
	until := min(u.rests, now+activeFor)
	if t.alarm == 0 || t.alarm > until {
		t.alarm = until
		if t.timer == nil {
			t.timer = time.AfterFunc(until-now, t.wake)
		} else {
			t.timer.Reset(until - now)
		}
	}
	return true
}

// wake lets in those who have rested.
func (t *Turns) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.alarm = 0
	t.next(time.Since(t.began))
}
