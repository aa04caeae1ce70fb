package gate

import "time"

const (
	// activeFor is how long a user counts as active after he asked or was served.
	activeFor = 100 * time.Millisecond
	// backlog is how long a user has had a queue, without a break, when he is
	// held to his part of the slots' time: a burst ends sooner.
	backlog = 10 * time.Millisecond
	// lasting is how long a user has had a queue when he is no guest any more,
	// for whom others keep to their part: a machine that is full for a moment makes
	// everybody wait.
	lasting = 500 * time.Millisecond
	// besides is what a request costs the machine for each instant of its turn: to
	// the daemon outside of the turn, to the kernel, to its caller. ES256 on two
	// processors, at half load: 25 µs in the turn, 100 µs in all.
	besides = 4
	// headroom, in percent, is how much of the processors may be in use before
	// users without a queue begin to wait for them.
	headroom = 75
	// least is the part of the slots' time that is left to users with a queue in
	// any case: one in sixty-four.
	least = 64
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
func (u *user) backlogged(now, while time.Duration) bool {
	return u.waiting > 0 && now-u.queued > while
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
		if other != u && !other.backlogged(now, lasting) {
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

// charge counts a turn: of a user with a queue against the part that is left to
// him, while he has to keep to it; of all others as what they need. The caller holds mu.
func (t *Turns) charge(u *user, held, now time.Duration) {
	if !u.backlogged(now, backlog) || !t.guests(u, now) {
		t.needed(now)
		t.light += held
		return
	}
	// An instant of his turns takes as many instants of the clock as his part is
	// smaller than one processor.
	u.owes = max(u.owes, now-held) + held*100/time.Duration(t.left(now))
	if u.owes-now > stint {
		u.rests = u.owes
	}
}

// needed is how much of the slots' time users without a queue took, in percent
// of one processor, over the last tenth of a second or so. The caller holds mu.
func (t *Turns) needed(now time.Duration) int64 {
	if gone := now - t.lightAt; gone > 0 { // what is older counts less and less
		t.light -= min(t.light, t.light*gone/activeFor)
		t.lightAt = now
	}
	return int64(100 * t.light / activeFor)
}

// left is what is left of the slots' time to a user with a queue, in percent of
// one processor. The caller holds mu.
func (t *Turns) left(now time.Duration) int64 {
	slots := int64(t.slots)
	return max(slots*headroom/besides-t.needed(now), slots*100/least, 1)
}

// resting reports whether the user has to wait although there is a slot, and
// sees to it that somebody looks again. The caller holds mu.
func (t *Turns) resting(u *user, now time.Duration) bool {
	if now >= u.rests || !u.backlogged(now, backlog) || !t.guests(u, now) {
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
