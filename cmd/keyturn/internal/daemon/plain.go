package daemon

import (
	"strings"
	"time"
)

type gapsByRing = map[string]time.Duration

// plain writes a duration without the zeros at its end: 1h, not 1h0m0s.
func plain(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
