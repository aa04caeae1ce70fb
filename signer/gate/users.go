package gate

import (
	"container/heap"
	"time"
)

// spareUsers is how many idle users are kept for the next ones that come.
const spareUsers = 64

// touch is the user, who is active now. The caller holds mu.
func (t *Turns) touch(uid uint32, now time.Duration) *user {
	u := t.users[uid]
	if u == nil {
		t.forget(now)
		if u = t.spare; u == nil {
			u = new(user)
		} else {
			t.spare = u.older
			t.spares--
		}
		*u = user{uid: uid, at: t.served}
		t.users[uid] = u
		t.pushNewest(u)
	}
	t.seen(u, now)
	return u
}

// seen makes the user the newest. The caller holds mu.
func (t *Turns) seen(u *user, now time.Duration) {
	u.active = now
	if t.newest != u {
		t.drop(u)
		t.pushNewest(u)
	}
}

// forget drops the oldest users that are idle: two for each that comes, so that
// they get fewer. The caller holds mu.
func (t *Turns) forget(now time.Duration) {
	for range 2 {
		u := t.oldest
		if u == nil || u.running > 0 || u.waiting > 0 || now-u.active <= activeFor {
			return
		}
		t.drop(u)
		delete(t.users, u.uid)
		if t.spares < spareUsers {
			*u = user{older: t.spare}
			t.spare = u
			t.spares++
		}
	}
}

func (t *Turns) pushNewest(u *user) {
	u.newer, u.older = nil, t.newest
	if t.newest == nil {
		t.oldest = u
	} else {
		t.newest.newer = u
	}
	t.newest = u
}

func (t *Turns) drop(u *user) {
	if u.newer == nil {
		t.newest = u.older
	} else {
		u.newer.older = u.older
	}
	if u.older == nil {
		t.oldest = u.newer
	} else {
		u.older.newer = u.newer
	}
}

// lanes is a heap of the users with waiting requests: the least served first,
// and of equals the one whose first request came first.
type lanes []*user

func (l *lanes) add(u *user)    { heap.Push((*order)(l), u) }
func (l *lanes) remove(u *user) { heap.Remove((*order)(l), u.place) }
func (l *lanes) fix(u *user)    { heap.Fix((*order)(l), u.place) }

// order is the heap.Interface of lanes.
type order []*user

func (o order) Len() int { return len(o) }

func (o order) Less(i, j int) bool {
	a, b := o[i], o[j]
	if a.at != b.at {
		return a.at < b.at
	}
	return a.first.came < b.first.came
}

func (o order) Swap(i, j int) {
	o[i], o[j] = o[j], o[i]
	o[i].place, o[j].place = i, j
}

func (o *order) Push(x any) {
	u := x.(*user)
	u.place = len(*o)
	*o = append(*o, u)
}

func (o *order) Pop() any {
	old := *o
	u := old[len(old)-1]
	old[len(old)-1] = nil
	*o = old[:len(old)-1]
	return u
}
