package gate

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// ErrBusy refuses a request because too many wait already, of this user or in
// all. To ask again in a second is worth a try.
var ErrBusy = errors.New("too many requests are waiting for their turn")

const (
	// longest is the most that one turn is charged with. A process that was
	// stopped in the midst of a turn must not make its user pay for the time.
	longest = 100 * time.Millisecond
	// queuedOfOne and queuedInAll are what may wait where the configuration says nothing.
	queuedOfOne, queuedInAll = 256, 4096
)

// TurnsConfig is what Turns are made of.
type TurnsConfig struct {
	// Slots is how many requests are worked on at once. [GOMAXPROCS]
	Slots int
	// SlotsOfOne is how many of them one user may have at most, alone or not. It
	// is for turns that are held while bytes are read or written. [all]
	SlotsOfOne int
	// OfOne is how many requests of one user may wait. [256]
	OfOne int
	// InAll is how many requests may wait. [4096]
	InAll int
}

// Turns bounds how many requests are worked on at once and shares them among
// users: whoever was served least comes first, by the time that his turns took
// (start-time fair queueing), and in the order of arrival among his own. A turn
// is for work on the processor: it must not be held while waiting for a disk,
// for Vault or for the caller.
//
// While others are active, one user never has the last slot, unless there is one
// only: who asks now and then finds it free. And who has had a queue for a while
// gets no more of the slots' time than those who have none leave, so that the
// processors are not all taken: the work of the kernel, of HTTP and of the
// callers themselves comes on top of the turns. Both
// hold for a tenth of a second after the other's last request.
//
// It starts no goroutine. What it knows of a user goes away when he has been
// idle for a tenth of a second: two such users for each new one that comes.
type Turns struct {
	slots, slotsOfOne, ofOne, inAll int

	began   time.Time
	waiters sync.Pool // of *waiter, so that waiting allocates nothing

	mu      sync.Mutex
	busy    int    // slots in use
	waiting int    // requests in all queues
	served  uint64 // where the last one that was let in stood (virtual time, in nanoseconds of work)
	came    uint64 // requests that ever waited
	users   map[uint32]*user
	newest  *user // the users by when they were last active
	oldest  *user
	queue   lanes         // the users with waiting requests
	aside   []*user       // of the queue, while next looks at it
	light   time.Duration // the slots' time that users without a queue took; see needed
	lightAt time.Duration // when that was reckoned
	timer   *time.Timer   // calls next when somebody has rested
	alarm   time.Duration // when it fires; 0: it is not set
	spare   *user         // idle users, to be used again
	spares  int
}

// user is what is known of one; Turns.mu guards it.
type user struct {
	uid     uint32
	at      uint64        // the service that he got, on the scale of Turns.served
	active  time.Duration // since Turns.began
	running int
	waiting int
	queued  time.Duration // since when somebody waits without a break
	owes    time.Duration // when he will have had no more than his share
	rests   time.Duration // until when he gets no turn, if he must rest
	first   *waiter       // his queue
	last    *waiter
	place   int // in Turns.queue, while somebody waits

	newer, older *user
}

// waiter is a request in the queue of its user; Turns.mu guards all but ready.
type waiter struct {
	ready      chan struct{} // room for one: whoever lets it in does not wait
	user       *user
	came       uint64
	let        bool // it has a slot
	prev, next *waiter
}

// Turn is a slot. Its holder leaves exactly once.
type Turn struct {
	turns *Turns
	user  *user
	since time.Duration
}

// NewTurns are turns that nobody has taken.
func NewTurns(cfg TurnsConfig) *Turns {
	t := &Turns{slots: cfg.Slots, slotsOfOne: cfg.SlotsOfOne, ofOne: cfg.OfOne, inAll: cfg.InAll, began: time.Now(), users: map[uint32]*user{}}
	if t.slots <= 0 {
		t.slots = runtime.GOMAXPROCS(0)
	}
	if t.slotsOfOne <= 0 {
		t.slotsOfOne = t.slots
	}
	if t.ofOne <= 0 {
		t.ofOne = queuedOfOne
	}
	if t.inAll <= 0 {
		t.inAll = queuedInAll
	}
	t.waiters.New = func() any { return &waiter{ready: make(chan struct{}, 1)} }
	return t
}

// Enter waits for a turn of the user's. It fails with ErrBusy at once where too
// many wait, and with the context's error as soon as the context ends.
func (t *Turns) Enter(ctx context.Context, uid uint32) (Turn, error) {
	now := time.Since(t.began)
	t.mu.Lock()
	u := t.touch(uid, now)
	if t.busy < t.slots && u.waiting == 0 && u.running < t.most(u, now) {
		u.at = max(u.at, t.served)
		t.let(u)
		t.mu.Unlock()
		return Turn{turns: t, user: u, since: now}, nil
	}
	if u.waiting >= t.ofOne || t.waiting >= t.inAll {
		t.mu.Unlock()
		return Turn{}, ErrBusy
	}
	w := t.waiters.Get().(*waiter)
	t.enqueue(u, w, now)
	t.mu.Unlock()

	select {
	case <-w.ready:
		t.waiters.Put(w)
		return Turn{turns: t, user: u, since: time.Since(t.began)}, nil
	case <-ctx.Done():
	}
	t.abandon(w)
	return Turn{}, ctx.Err()
}

// Leave gives the slot to the next one.
func (o Turn) Leave() {
	t, u := o.turns, o.user
	now := time.Since(t.began)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	u.running--
	t.seen(u, now)
	held := min(now-o.since, longest)
	u.at += uint64(held)
	t.charge(u, held, now)
	if u.waiting > 0 {
		t.queue.fix(u)
	}
	t.next(now)
}

// Waiting is how many requests wait now.
func (t *Turns) Waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waiting
}

// let gives the user a slot. The caller holds mu. What it costs is known when
// he leaves; until then he stands a little behind those who got none.
func (t *Turns) let(u *user) {
	t.busy++
	u.running++
	t.served = max(t.served, u.at)
	u.at++
}

// next lets in those for whom there is room. The caller holds mu.
func (t *Turns) next(now time.Duration) {
	for t.busy < t.slots && len(t.queue) > 0 {
		u := t.queue[0]
		if u.running >= t.most(u, now) || t.resting(u, now) {
			t.queue.remove(u)
			t.aside = append(t.aside, u)
			continue
		}
		w := u.first
		t.unlink(w)
		t.let(u)
		if u.waiting == 0 {
			t.queue.remove(u)
		} else {
			t.queue.fix(u)
		}
		w.let = true
		w.ready <- struct{}{}
	}
	for i, u := range t.aside {
		t.queue.add(u)
		t.aside[i] = nil
	}
	t.aside = t.aside[:0]
}

// enqueue puts a request at the end of its user's queue. The caller holds mu.
func (t *Turns) enqueue(u *user, w *waiter, now time.Duration) {
	t.came++
	*w = waiter{ready: w.ready, user: u, came: t.came, prev: u.last}
	if u.last == nil {
		u.first = w
	} else {
		u.last.next = w
	}
	u.last = w
	t.waiting++
	if u.waiting++; u.waiting == 1 {
		u.queued = now
		u.at = max(u.at, t.served) // who was idle has saved nothing up
		t.queue.add(u)
	}
}

// unlink takes a request out of its user's queue. The caller holds mu.
func (t *Turns) unlink(w *waiter) {
	u := w.user
	if w.prev == nil {
		u.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		u.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	u.waiting--
	t.waiting--
}

// abandon takes away a request that waits no longer, and gives back the slot
// that it may have been given in the same moment.
func (t *Turns) abandon(w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := w.user
	if w.let {
		<-w.ready
		t.busy--
		u.running--
		t.next(time.Since(t.began))
	} else {
		t.unlink(w)
		if u.waiting == 0 {
			t.queue.remove(u)
		} else {
			t.queue.fix(u)
		}
	}
	t.waiters.Put(w)
}
