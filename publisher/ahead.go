package publisher

import (
	"fmt"
	"time"
)

// slowestRead is how long a read of the store may take, at most: one that
// began before a target was found ahead has ended, or been given up, by then (the
// rotator bounds a whole tick by it).
const slowestRead = time.Minute

// ahead is since when a target has held a generation that this replica has not
// seen in the store.
type ahead struct {
	// generation is the one that was found first. This replica reaching it means
	// that another was faster; a target that goes on rising means nothing.
	generation uint64
	since      time.Time
}

// isAhead reports that the target holds a newer set than this replica has seen,
// and is therefore to be left alone.
//
// A set is published only after its generation was stored. So a target may be
// ahead of this replica for as long as it takes to read the store once more; one
// that the store has not caught up with after that was not written by any
// replica of this store. It is drift: what the side file says counts for nothing,
// and the set is written again, at the generation that the store has.
func (v *visit) isAhead() bool {
	s, h := v.snapshot, &v.held
	stands := h.holds()
	if stands.Yields(s) {
		v.ahead = ahead{}
		return false
	}
	if v.ahead.since.IsZero() || s.Generation >= v.ahead.generation {
		v.ahead = ahead{stands.Generation, v.now}
	}
	if v.lockErr == nil && s.Servable() && !s.Hold(v.now).Expired(v.clock.Late) && v.readAt.Sub(v.ahead.since) > v.patience {
		h.side, h.set, h.spoilt = nil, nil, true
		v.report.drifted = true
		return false
	}
	v.fail(CodeTargetAhead, v.required, fmt.Errorf(
		"%s holds a newer set (generation %d) than this replica has found in its store: another replica was faster, and this passes; or two daemons of different stores write one file; or somebody edited %s",
		v.path, v.ahead.generation, v.name+sideSuffix))
	return true
}
