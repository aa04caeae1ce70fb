package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// ledger counts what happens, and keeps what may not.
type ledger struct {
	began time.Time

	mu       sync.Mutex
	counts   map[string]int
	diary    []string // what was done, in order
	failures []string
	failed   map[string]int // by kind
	first    chan struct{}  // closed at the first failure of a verification
}

// mostFailures is how many are kept word for word.
const mostFailures = 15

func newLedger() *ledger {
	return &ledger{began: time.Now(), counts: map[string]int{}, failed: map[string]int{}, first: make(chan struct{})}
}

func (l *ledger) stamp() string {
	return fmt.Sprintf("%s %7.2fs", time.Now().UTC().Format("15:04:05.000"), time.Since(l.began).Seconds())
}

func (l *ledger) count(what string) { l.add(what, 1) }

func (l *ledger) add(what string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what] += n
}

// most keeps the largest of what was measured, in milliseconds.
func (l *ledger) most(what string, d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what] = max(l.counts[what], int(d.Milliseconds()))
}

func (l *ledger) counted(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[what]
}

// note writes into the diary.
func (l *ledger) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.diary = append(l.diary, l.stamp()+" "+fmt.Sprintf(format, args...))
}

// fail keeps what breaks the promise.
func (l *ledger) fail(kind, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed[kind]++; l.failed[kind] <= mostFailures {
		text := fmt.Sprintf("%s %s: %s", l.stamp(), kind, fmt.Sprintf(format, args...))
		l.failures = append(l.failures, text)
		l.diary = append(l.diary, "FAILURE "+text)
	}
	if kind == unverifiable {
		select {
		case <-l.first:
		default:
			close(l.first)
		}
	}
}

// unverifiable is the kind of failure that the whole machine is there to prevent.
const unverifiable = "unverifiable"

// report prints the counts and returns how many failures there were.
func (l *ledger) report(t *testing.T) int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(l.counts)) {
		t.Logf("%-52s %d", name, l.counts[name])
	}
	all := 0
	for kind, n := range l.failed {
		t.Logf("FAILURES: %-42s %d", kind, n)
		all += n
	}
	return all
}

// tell fails the test with what failed and with all that was done.
func (l *ledger) tell(t *testing.T, n int, seed uint64) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Errorf("%d failures with -chaos.seed %d:\n%s\nwhat was done:\n%s", n, seed, strings.Join(l.failures, "\n"), strings.Join(l.diary, "\n"))
}
