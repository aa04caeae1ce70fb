package load

import (
	"math"
	"math/bits"
	"time"
)

// Each power of two nanoseconds has 1<<fine buckets: a latency is told with an
// error of less than 1 %, whatever its size.
const fine = 7

// histogram counts latencies.
type histogram struct {
	count [(64 - fine) << fine]uint32
	total int64
	max   time.Duration
}

func (h *histogram) add(d time.Duration) {
	h.count[bucket(uint64(max(d, 0)))]++
	h.total++
	h.max = max(h.max, d)
}

func bucket(ns uint64) int {
	if ns < 1<<fine {
		return int(ns)
	}
	shift := bits.Len64(ns) - fine - 1
	return (shift+1)<<fine + int(ns>>shift) - 1<<fine
}

// upper is the largest latency of a bucket.
func upper(b int) time.Duration {
	if b < 1<<fine {
		return time.Duration(b)
	}
	shift := b>>fine - 1
	return time.Duration((uint64(b&(1<<fine-1)|1<<fine)+1)<<shift - 1)
}

// quantile is a latency that a share of all does not exceed.
func (h *histogram) quantile(share float64) time.Duration {
	want := int64(math.Ceil(share * float64(h.total)))
	var sum int64
	for b, n := range h.count {
		if sum += int64(n); sum >= want && n > 0 {
			return min(upper(b), h.max)
		}
	}
	return 0
}
