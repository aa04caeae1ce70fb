package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// entry is what one caller wants written: records without their chain members,
// one after the other.
type entry struct {
	buf  []byte
	ends []int
	done chan error // holds the one outcome
}

// keepBytes bounds the buffers that are kept for the next use.
const keepBytes = 256 << 10

// Append writes one record; when it returns nil the record is in the file. On
// any error the caller must not release what the record allows. The context
// bounds the wait for other writers: a write of its own that has begun is finished, and
// one that can begin at once is made even where the context has ended, since
// a decision was taken.
//
// A refusal that is one of many alike may be held back for some seconds and
// then written together with them, as one record with their number.
func (l *Log) Append(ctx context.Context, r Record) error {
	e := l.entry()
	if err := l.add(e, &r); err != nil {
		l.recycle(e)
		return err
	}
	return l.submit(ctx, e)
}

// AppendAll is Append for records that belong together: either all of them are
// in the file, in this order, or the caller is told an error.
func (l *Log) AppendAll(ctx context.Context, records []Record) error {
	e := l.entry()
	for i := range records {
		if err := l.add(e, &records[i]); err != nil {
			l.recycle(e)
			return err
		}
	}
	return l.submit(ctx, e)
}

func (l *Log) entry() *entry {
	if e, ok := l.free.Get().(*entry); ok {
		e.buf, e.ends = e.buf[:0], e.ends[:0]
		return e
	}
	return &entry{done: make(chan error, 1)}
}

func (l *Log) recycle(e *entry) {
	if cap(e.buf) <= keepBytes {
		l.free.Put(e)
	}
}

// add encodes a record, unless it is held back.
func (l *Log) add(e *entry, r *Record) (err error) {
	own := *r
	if own.Time.IsZero() {
		own.Time = time.Now()
	}
	// A denial with a jti takes back an allow that stands in the log already: it
	// is never one among many.
	if own.Decision == Deny && own.Count == 0 && own.JTI == "" && l.denials.hold(own, l.flushLater) {
		return nil
	}
	if e.buf, err = own.appendTo(e.buf); err != nil {
		return err
	}
	e.ends = append(e.ends, len(e.buf))
	return nil
}

// submit puts an entry into the queue and waits until it is written. Whoever
// gets the turn writes all that waits, with one write: the more callers there
// are at once, the less each pays.
func (l *Log) submit(ctx context.Context, e *entry) error {
	if len(e.ends) == 0 { // all of it is held back, or there is nothing
		l.recycle(e)
		return nil
	}
	l.mu.Lock()
	l.waiting = append(l.waiting, e)
	l.mu.Unlock()
	var err error
	select {
	case l.turn <- struct{}{}:
		err = l.lead(e)
	default:
		select {
		case l.turn <- struct{}{}:
			err = l.lead(e)
		case err = <-e.done:
		case <-ctx.Done():
			if !l.withdraw(e) {
				// Who writes it owns it now, so it is not used again.
				return fmt.Errorf("append to audit log %q: the write has begun and does not end: %w", l.path, ctx.Err())
			}
			err = fmt.Errorf("other writers are being waited for: %w", ctx.Err())
		}
	}
	l.recycle(e)
	if err != nil && !errors.Is(err, ErrClosed) {
		err = fmt.Errorf("append to audit log %q: %w", l.path, err)
	}
	return err
}

// withdraw takes an entry out of the queue. It reports false where somebody is
// writing it.
func (l *Log) withdraw(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.waiting, e)
	if i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
	}
	return i >= 0
}

// lead writes what waits, e among it unless another has just done so, and
// gives the turn back.
func (l *Log) lead(e *entry) error {
	l.mu.Lock()
	group := l.waiting
	l.waiting = l.group[:0]
	l.mu.Unlock()
	err := ErrClosed
	if l.file != nil && len(group) > 0 {
		err = l.write(group)
		l.denials.failing.Store(err != nil)
	}
	for _, one := range group {
		one.done <- err // from here on it is its caller's again
	}
	clear(group)
	l.group = group[:0]
	<-l.turn
	return <-e.done
}

// write appends a group: all of it, or nothing that anybody relies on. What a
// short write leaves (a full disk, a limit on the file's size) is taken back;
// where that is not possible either, the file is read again before the next
// write, which names the damage. A crash in between is found by the next Open.
func (l *Log) write(group []*entry) error {
	if l.doubt {
		if err := l.settle(); err != nil {
			return err
		}
	}
	last := l.last
	out := l.torn.settle(l.out[:0], &last)
	for _, e := range group {
		from := 0
		for _, to := range e.ends {
			start := len(out)
			out = last.seal(append(out, e.buf[from:to]...), start)
			from = to
		}
	}
	if l.out = out[:0]; cap(out) > keepBytes {
		l.out = nil
	}
	n, err := l.file.Write(out)
	if err == nil {
		l.last, l.torn, l.size = last, torn{}, l.size+int64(n)
		l.note()
		return nil
	}
	if n == 0 {
		return err // the file is as it was
	}
	if undone := l.undo(int64(n)); undone != nil {
		l.doubt = true
		return errors.Join(err, fmt.Errorf("take back %d bytes: %w", n, undone))
	}
	return err
}

// undo cuts off the last n bytes. We have the turn, so they are the ones that
// we wrote.
func (l *Log) undo(n int64) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < n { // truncated by somebody: nothing of ours is left
		return nil
	}
	return l.file.Truncate(info.Size() - n)
}

// settle finds out what the file ends in. Records of a write that failed may
// be whole: they are a part of the chain then, though nobody was told of them.
func (l *Log) settle() error {
	end, err := readEnd(l.file)
	if err != nil {
		return err
	}
	if end.last.Chain == l.last.Chain && end.last.Seq > l.last.Seq {
		l.last = end.last
	}
	l.torn, l.size, l.doubt = end.torn, end.size, false
	return nil
}
