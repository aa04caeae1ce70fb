package audit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// How much of a flood of refusals is written one by one.
const (
	// burst is how many refusals of one caller are written at once before they are
	// counted, perSecond how many more with each second.
	burst     = 60
	perSecond = 1
	// flushEvery is how long refusals are counted before their number is written.
	flushEvery = 5 * time.Second
	// kinds is how many kinds of refusals are told apart for one caller, and
	// maxCallers how many callers: what is beyond shares one count.
	kinds      = 16
	maxCallers = 256
)

// caller is whom refusals are counted for. The pid is not in it: a program that
// is started again and again is one caller.
type caller struct {
	uid, gid uint32
	socket   string
	event    Event
}

// kind is what else refusals that are counted together have in common.
type kind struct{ profile, code string }

// quota is what a caller may have written.
type quota struct {
	left float64
	at   time.Time
	held map[kind]*Record
}

// denials counts refusals, so that a caller who is refused without end cannot
// fill the disk. Nothing is lost but what differs between refusals that are alike.
type denials struct {
	mu      sync.Mutex
	callers map[caller]*quota
	timer   *time.Timer // set while anything is held
	closed  bool
	// failing: the last write failed. Nothing is held then, so that who is refused
	// learns of it, as everybody does, and nobody takes it for a log that works.
	failing atomic.Bool

	// flushing makes taking and writing one step; it is locked before the turn.
	flushing sync.Mutex
}

// hold reports whether a refusal was counted and need not be written now; then
// flush runs in some seconds.
func (d *denials) hold(r Record, flush func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.failing.Load() {
		return false
	}
	q := d.quota(&r)
	if q.left >= 1 {
		q.left--
		return false
	}
	k := kind{r.Profile, r.Code}
	if q.held[k] == nil && len(q.held) >= kinds {
		k, r.Profile, r.Code, r.Reason = kind{}, "", "", "refusals of many kinds"
	}
	q.count(k, r, 1)
	if d.timer == nil {
		d.timer = time.AfterFunc(flushEvery, flush)
	}
	return true
}

// quota is that of the caller, refilled. d.mu is held.
func (d *denials) quota(r *Record) *quota {
	c := caller{r.UID, r.GID, r.Socket, r.Event}
	q := d.callers[c]
	if q == nil && len(d.callers) >= maxCallers {
		d.sweep(r.Time)
	}
	if q == nil && len(d.callers) >= maxCallers {
		// One more for each event: of these there are few.
		c = caller{uid: 1<<32 - 1, gid: 1<<32 - 1, event: r.Event}
		r.UID, r.GID, r.PID, r.Socket, r.Reason = c.uid, c.gid, 0, "", "refusals of many callers"
		q = d.callers[c]
	}
	if q == nil {
		if d.callers == nil {
			d.callers = map[caller]*quota{}
		}
		q = &quota{left: burst, at: r.Time}
		d.callers[c] = q
	}
	if span := r.Time.Sub(q.at).Seconds(); span > 0 {
		q.left, q.at = min(burst, q.left+span*perSecond), r.Time
	}
	return q
}

// sweep forgets callers that have not been refused for a while.
func (d *denials) sweep(now time.Time) {
	for c, q := range d.callers {
		if len(q.held) == 0 && q.left+now.Sub(q.at).Seconds()*perSecond >= burst {
			delete(d.callers, c)
		}
	}
}

// count adds n refusals, of which r was the last.
func (q *quota) count(k kind, r Record, n int) {
	first := r.First
	if first.IsZero() {
		first = r.Time
	}
	if have := q.held[k]; have != nil {
		n += have.Count
		if have.First.Before(first) {
			first = have.First
		}
		if have.Time.After(r.Time) {
			r = *have
		}
	}
	if q.held == nil {
		q.held = map[kind]*Record{}
	}
	r.Count, r.First = n, first
	q.held[k] = &r
}

// take hands out all that is held.
func (d *denials) take() (out []Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.callers {
		for _, r := range q.held {
			out = append(out, *r)
		}
		q.held = nil
	}
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	return out
}

// settle says what became of what was taken: what was not written is counted on,
// and tried again.
func (d *denials) settle(taken []Record, err error, flush func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		return
	}
	for _, r := range taken {
		d.quota(&r).count(kind{r.Profile, r.Code}, r, r.Count)
	}
	if d.timer == nil && !d.closed {
		d.timer = time.AfterFunc(flushEvery, flush)
	}
}

func (d *denials) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// flushLater is what the timer runs. Whether it went well is seen by who is
// refused next: nothing is held while it fails.
func (l *Log) flushLater() {
	ctx, cancel := context.WithTimeout(context.Background(), flushEvery)
	defer cancel()
	_ = l.Flush(ctx)
}

// Flush writes the refusals that are held back. Where that fails they are held on.
func (l *Log) Flush(ctx context.Context) error {
	d := &l.denials
	d.flushing.Lock()
	defer d.flushing.Unlock()
	taken := d.take()
	if len(taken) == 0 {
		return nil
	}
	err := l.AppendAll(ctx, taken)
	d.settle(taken, err, l.flushLater)
	if err != nil {
		return fmt.Errorf("refusals that were counted are not in the audit log: %w", err)
	}
	return nil
}
