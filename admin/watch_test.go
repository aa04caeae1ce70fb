package admin

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/keyring"
)

// TestRun: what the probes would say reaches who reads the log alone, once for
// each change.
func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		roles bool // the signer's included
		want  []string
	}{
		"with the signer": {true, []string{
			"INFO msg=ready probe=signer",
			"INFO msg=ready probe=public",
			`WARN msg="not ready" probe=signer codes=[signing_lapsed]`,
			`WARN msg="not ready" probe=public codes="[set_expired signing_lapsed]"`,
			"INFO msg=ready probe=signer",
			"INFO msg=ready probe=public",
			`WARN msg="not ready" probe=alive codes=[not_alive]`,
		}},
		"without": {false, []string{
			"INFO msg=ready probe=public",
			`WARN msg="not ready" probe=public codes=[set_expired]`,
			"INFO msg=ready probe=public",
			`WARN msg="not ready" probe=alive codes=[not_alive]`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var lapsed atomic.Pointer[[]keyring.Alarm]
				lapsed.Store(new([]keyring.Alarm))
				var stuck atomic.Bool
				f := newFixture(t, func(c *Config) {
					c.Alive = func() error {
						if stuck.Load() {
							return errors.New("stuck")
						}
						return nil
					}
					c.SignerAlarms = func() []keyring.Alarm { return *lapsed.Load() }
					if !tc.roles {
						c.SignerAlarms = nil
					}
				})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- f.Run(ctx) }()
				wait := func() { time.Sleep(3 * watchInterval); synctest.Wait() }
				wait()
				f.Accept("main", snapshot(time.Now()))
				wait()
				lapsed.Store(&[]keyring.Alarm{{Code: "signing_lapsed", Issuer: "main"}, {Code: "signing_lapsed", Issuer: "main", Ring: "web"}})
				wait()
				f.Accept("main", snapshot(time.Now().Add(-20*time.Hour)))
				wait()
				lapsed.Store(new([]keyring.Alarm))
				wait()
				f.Accept("main", snapshot(time.Now()))
				wait()
				stuck.Store(true)
				wait()
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				var got []string
				for line := range strings.Lines(f.log.String()) {
					_, line, _ = strings.Cut(strings.TrimSpace(line), "level=")
					got = append(got, line)
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("log (-want +got):\n%s", diff)
				}
			})
		})
	}
}
