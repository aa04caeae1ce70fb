package vaultsession

import (
	"net/http"
	"time"
)

// storeClock is what Vault's clock said in an answer.
type storeClock struct {
	// date is the Date header, cut to a second.
	date time.Time
	// sent and received are this host's wall clock before the request and after
	// the head of its answer.
	sent, received time.Time
}

// StoreClock is Vault's own clock in its last answer, cut to a second, with
// this host's wall clock before that request and after its answer; false before
// the first answer. What a proxy on the way answered does not count.
func (s *Session) StoreClock() (date, sent, received time.Time, ok bool) {
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	c := s.clock
	return c.date, c.sent, c.received, !c.date.IsZero()
}

// noteClock keeps the clock of an answer that is Vault's. One without the
// header, or with one that is no date, says nothing.
func (s *Session) noteClock(h http.Header, sent, received time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	s.clockMu.Lock()
	defer s.clockMu.Unlock()
	s.clock = storeClock{date, sent, received}
}

// wall is the wall clock alone: what is compared with it must not be carried
// over a step of that clock by the monotonic one.
func wall() time.Time { return time.Now().Round(0) }
