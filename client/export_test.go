package client

import "time"

// Age makes the source's token older than it is.
func Age(s *Source, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.current.Load(); h != nil {
		older := *h
		older.got = h.got.Add(-d)
		s.current.Store(&older)
	}
}
