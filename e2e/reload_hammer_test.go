package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestReloadUnderLoad: while fifty reloads go by, no request fails, and each
// answer is wholly of one version: one that held between its beginning and its end.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.save())
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	const reloads = 50
	var holds, written atomic.Int64 // what surely holds, and what may hold already
	var asked atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				least := holds.Load()
				text, err := d.probe()
				most := written.Load()
				got, badNumber := strconv.ParseInt(strings.TrimPrefix(text, "v"), 10, 64)
				if err != nil || badNumber != nil || got < least || got > most {
					t.Errorf("version %q, %v, between %d and %d", text, err, least, most)
					return
				}
				asked.Add(1)
			}
		})
	}
	for n := 1; n <= reloads; n++ {
		written.Store(int64(n))
		if n%3 == 0 { // one that is refused comes between
			s.replace(strings.Replace(s.version(n), "request.subject", "request.subjekt", 1))
			must(t, d.cmd.Process.Signal(syscall.SIGHUP))
		}
		s.replace(s.version(n))
		must(t, d.cmd.Process.Signal(syscall.SIGHUP))
		within(t, 20*time.Second, "the next version", func() error {
			if v, err := d.probe(); err != nil || v != fmt.Sprint("v", n) {
				return fmt.Errorf("%s, %v", v, err)
			}
			return nil
		})
		holds.Store(int64(n))
	}
	close(done)
	wg.Wait()
	if asked.Load() < reloads {
		t.Errorf("%d answers during %d reloads", asked.Load(), reloads)
	}
}
