package keyring

import "time"

// Observation is what a read-back of a target showed, as a consumer sees it.
type Observation struct {
	// At is when the answer had arrived.
	At time.Time
	// Kids are the keys that it held, sorted.
	Kids []string
}

// Alarm is one thing that is not as it should be, in words that say how to
// mend it. Codes are stable: metrics and health name them.
type Alarm struct {
	Code    string
	Issuer  string
	Target  string
	Ring    string
	Kid     string
	Message string
	Since   time.Time
	// Fatal alarms stop what they are about; the others degrade it.
	Fatal bool
}
