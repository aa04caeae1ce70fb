package gate

import (
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// allowed counts what is let through of n requests in one instant.
func allowed(l *Limiter, profile string, uid uint32, r Rate, n int, now time.Time) (ok int) {
	for range n {
		if yes, _ := l.Allow(profile, uid, r, now); yes {
			ok++
		}
	}
	return ok
}

func TestLimiterCounts(t *testing.T) {
	l, r := NewLimiter(), Rate{PerSecond: 10, Burst: 5}
	for _, at := range []struct {
		name string
		now  time.Time
		want int
	}{
		{"a burst", noon, 5},
		{"nothing is left", noon, 0},
		{"a second later, half of it forfeited", noon.Add(time.Second), 5},
		{"three tenths later", noon.Add(1300 * time.Millisecond), 3},
		{"an hour later, no more than a burst", noon.Add(time.Hour), 5},
	} {
		if got := allowed(l, "orders", flood, r, 100, at.now); got != at.want {
			t.Errorf("%s: %d let through, want %d", at.name, got, at.want)
		}
	}
	if got := allowed(l, "orders", calm, r, 100, noon); got != 5 {
		t.Errorf("another user: %d, want 5", got)
	}
	if got := allowed(l, "invoices", flood, r, 100, noon); got != 5 {
		t.Errorf("another profile: %d, want 5", got)
	}
	if got := allowed(l, "orders", flood, Rate{}, 100, noon); got != 100 {
		t.Errorf("no rate: %d of 100", got)
	}
}

// TestLimiterRetryAfter: who comes back when he was told to is let through, and
// not a moment sooner.
func TestLimiterRetryAfter(t *testing.T) {
	for _, r := range []Rate{{PerSecond: 10, Burst: 1}, {PerSecond: 0.5, Burst: 3}, {PerSecond: 5000, Burst: 1}} {
		l := NewLimiter()
		allowed(l, "p", flood, r, r.Burst, noon)
		ok, wait := l.Allow("p", flood, r, noon)
		if ok || wait <= 0 {
			t.Fatalf("%+v: Allow = %v, %s", r, ok, wait)
		}
		if ok, _ := l.Allow("p", flood, r, noon.Add(wait-wait/10)); ok {
			t.Errorf("%+v: let through before the time", r)
		}
		if ok, _ := l.Allow("p", flood, r, noon.Add(wait+time.Microsecond)); !ok {
			t.Errorf("%+v: refused after the %s that it was told to wait", r, wait)
		}
	}
	l, rare := NewLimiter(), Rate{PerSecond: 1.0 / 86400, Burst: 1}
	allowed(l, "p", flood, rare, 1, noon)
	if _, wait := l.Allow("p", flood, rare, noon); wait != longestRetry {
		t.Errorf("once a day: told to wait %s, want %s", wait, longestRetry)
	}
}

// TestLimiterReload: another rate holds at once, and gives nothing away.
func TestLimiterReload(t *testing.T) {
	l := NewLimiter()
	if got := allowed(l, "p", flood, Rate{PerSecond: 1, Burst: 4}, 9, noon); got != 4 {
		t.Fatalf("%d let through, want 4", got)
	}
	more := Rate{PerSecond: 100, Burst: 50}
	if got := allowed(l, "p", flood, more, 99, noon); got != 0 {
		t.Errorf("%d let through at the moment of the reload, want none", got)
	}
	if got := allowed(l, "p", flood, more, 99, noon.Add(100*time.Millisecond)); got != 10 {
		t.Errorf("%d let through in a tenth of a second at 100 a second, want 10", got)
	}
	later := noon.Add(time.Minute) // a full bucket of 50
	if got := allowed(l, "p", flood, Rate{PerSecond: 1, Burst: 2}, 99, later); got != 2 {
		t.Errorf("%d let through after the burst was lowered, want 2", got)
	}
}

// TestLimiterForgets: however many users come, memory is bounded, and one whose
// bucket is empty does not get a new one by it.
func TestLimiterForgets(t *testing.T) {
	l, r := NewLimiter(), Rate{PerSecond: 1, Burst: 100}
	size := func() (n int) {
		for i := range l.shards {
			n += len(l.shards[i].buckets)
		}
		return n
	}
	if got := allowed(l, "p", flood, r, 200, noon); got != 100 {
		t.Fatalf("%d let through, want 100", got)
	}
	for uid := range uint32(100_000) {
		l.Allow("p", 10_000+uid, r, noon)
	}
	if n := size(); n > shards*mostBuckets {
		t.Errorf("%d buckets after 100,000 users in one instant, want %d at most", n, shards*mostBuckets)
	}
	if got := allowed(l, "p", flood, r, 100, noon); got != 0 {
		t.Errorf("the one who had used his up was given %d more", got)
	}
	for uid := range uint32(20_000) {
		l.Allow("p", 500_000+uid, r, noon.Add(time.Duration(uid)*time.Second))
	}
	if n := size(); n > 300 {
		t.Errorf("%d buckets when users come one a second, want few", n)
	}
}

// TestLimiterRaisedBurst: who has rested has all of a burst that was raised meanwhile.
func TestLimiterRaisedBurst(t *testing.T) {
	l, start := NewLimiter(), time.Now()
	if ok, _ := l.Allow("p", 1, Rate{PerSecond: 2, Burst: 3}, start); !ok {
		t.Fatal("the first was refused")
	}
	for i := range 50 {
		if ok, _ := l.Allow("p", 1, Rate{PerSecond: 50, Burst: 50}, start.Add(2*time.Minute)); !ok {
			t.Fatalf("number %d of a burst of 50 was refused", i+1)
		}
	}
	if ok, _ := l.Allow("p", 1, Rate{PerSecond: 50, Burst: 50}, start.Add(2*time.Minute)); ok {
		t.Error("one too many was allowed")
	}
}

// TestLimiterClocksOutOfOrder: readings that come in another order than they
// were made give nobody more than one after the other would.
func TestLimiterClocksOutOfOrder(t *testing.T) {
	l, r, start, allowed := NewLimiter(), Rate{PerSecond: 1000, Burst: 10}, time.Now(), 0
	for i := range 10_000 {
		at := start.Add(time.Duration(i) * time.Millisecond)
		for _, ahead := range []time.Duration{time.Millisecond, 0} {
			if ok, _ := l.Allow("p", 1, r, at.Add(ahead)); ok {
				allowed++
			}
		}
	}
	if allowed > 10_020 {
		t.Errorf("%d were allowed in 10 s at 1000 a second", allowed)
	}
}
