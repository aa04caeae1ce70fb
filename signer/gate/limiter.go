package gate

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is what one user may ask of one profile: so many requests a second in
// the long run, and so many at once after a rest.
type Rate struct {
	PerSecond float64
	Burst     int // at least 1
}

const (
	// shards keep users apart from one another's locks.
	shards = 16
	// mostBuckets is how many buckets a shard holds: some megabytes in all.
	mostBuckets = 1024
	// looked is how many buckets are looked at for one that can go, whenever a new one comes.
	looked = 8
	// longestRetry bounds what a very low rate makes a caller wait.
	longestRetry = time.Minute
)

// Limiter holds a token bucket for each profile and user. Ask it only about
// users whom the profile allows: strangers shall not get a bucket. Buckets that
// have filled up again vanish, for a new one would be the same; where more are
// in use than there is room for, the fullest of some goes.
type Limiter struct {
	shards [shards]shard
}

type shard struct {
	mu      sync.Mutex
	buckets map[owner]*bucket
}

// bucket is a token bucket that time never runs backwards for: callers read
// their clocks before they get here, in any order, and rate.Limiter pays the
// time between an earlier and a later reading again each time.
type bucket struct {
	*rate.Limiter
	latest time.Time
}

type owner struct {
	profile string
	uid     uint32
}

// NewLimiter is a limiter whose buckets are full.
func NewLimiter() *Limiter {
	l := new(Limiter)
	for i := range l.shards {
		l.shards[i].buckets = map[owner]*bucket{}
	}
	return l
}

// Allow takes one token. Where there is none it says when one will be there. A
// rate of zero or less is no limit. A rate other than that of the last call
// holds from now on, and what was used up stays so.
func (l *Limiter) Allow(profile string, uid uint32, r Rate, now time.Time) (ok bool, retryAfter time.Duration) {
	if r.PerSecond <= 0 {
		return true, 0
	}
	burst := max(1, r.Burst)
	s := &l.shards[(uid*2654435769)>>28] // Fibonacci hashing: neighbours are apart
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[owner{profile, uid}]
	if b != nil && b.Burst() != burst && b.TokensAt(now) >= float64(b.Burst()) {
		b = nil // it is full: by the new rate it is as well
	}
	if b == nil {
		s.makeRoom(now)
		b = &bucket{Limiter: rate.NewLimiter(rate.Limit(r.PerSecond), burst)}
		s.buckets[owner{profile, uid}] = b
	}
	if now.Before(b.latest) {
		now = b.latest
	}
	b.latest = now
	if b.Limit() != rate.Limit(r.PerSecond) {
		b.SetLimitAt(now, rate.Limit(r.PerSecond))
	}
	if b.Burst() != burst {
		b.SetBurstAt(now, burst)
	}
	if b.AllowN(now, 1) {
		return true, 0
	}
	missing := 1 - b.TokensAt(now)
	return false, time.Duration(min(missing/r.PerSecond, longestRetry.Seconds()) * float64(time.Second))
}

// makeRoom drops some full buckets, so that they go sooner than new ones come,
// and where the shard has no room, the fullest that it meets. The caller holds mu.
func (s *shard) makeRoom(now time.Time) {
	var fullest owner
	most, seen := -1.0, 0
	for who, b := range s.buckets { // from another place each time
		if part := b.TokensAt(now) / float64(b.Burst()); part >= 1 {
			delete(s.buckets, who)
		} else if part > most {
			fullest, most = who, part
		}
		if seen++; seen == looked {
			break
		}
	}
	if len(s.buckets) >= mostBuckets {
		delete(s.buckets, fullest)
	}
}
