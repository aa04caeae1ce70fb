package publisher

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/keyring"
)

// A side file may claim any time: one beyond what a Duration holds must not
// make the target's goroutine spin.
func TestDelayOfTheFarFuture(t *testing.T) {
	target := &target{cfg: &Config{Interval: time.Second}, conf: Target{Kind: keyring.TargetFile}}
	far := time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, failures := range []int{0, 1, 30} {
		if d := target.delay(report{serveUntil: far, changes: far}, failures); d < 25*time.Millisecond {
			t.Errorf("after %d failures it looks again in %s", failures, d)
		}
	}
	soon := time.Now().Add(100 * time.Millisecond)
	if d := target.delay(report{changes: soon}, 0); d > 110*time.Millisecond {
		t.Errorf("the set changes in 100ms and it looks in %s", d)
	}
}
