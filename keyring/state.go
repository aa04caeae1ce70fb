package keyring

import "time"

// State is where a key is in its life (NIST SP 800-57 part 1 §7).
type State string

// The states, in the order of life.
const (
	Standby   State = "standby"   // pre-activation: in the set, does not sign
	Active    State = "active"    // in the set, signs
	Retired   State = "retired"   // deactivated: in the set, its half still exists
	Closed    State = "closed"    // in the set, will never sign again, its half is destroyed
	Withdrawn State = "withdrawn" // not in the set
	Revoked   State = "revoked"   // compromised: not in the set, at once
)

// State derives where the key is at a time.
func (k *Key) State(now time.Time) State {
	switch {
	case !k.Revoked.IsZero():
		return Revoked
	case !k.Closed.IsZero() && !now.Before(k.WithdrawAt()):
		return Withdrawn
	case !k.Closed.IsZero():
		return Closed
	case !k.Retired.IsZero():
		return Retired
	case !k.Activated.IsZero():
		return Active
	}
	return Standby
}

func (k *Key) isStandby() bool {
	return k.Activated.IsZero() && k.Retired.IsZero() && k.Revoked.IsZero()
}

func (k *Key) isActive() bool {
	return !k.Activated.IsZero() && k.Retired.IsZero() && k.Revoked.IsZero()
}

// InSet reports whether the key is published at a time. A key leaves by age
// only where its closing is recorded: until then a rollback could let it sign.
func (k *Key) InSet(now time.Time) bool {
	s := k.State(now)
	return s != Withdrawn && s != Revoked
}

// WithdrawAt is when the last token of a retired key has expired everywhere;
// zero for a key that is not retired.
func (k *Key) WithdrawAt() time.Time {
	if k.Retired.IsZero() {
		return time.Time{}
	}
	return k.SignUntil.Add(time.Duration(k.Tail))
}

// SignUntil is how long a key may sign: the lease while it is active, what is
// left of the lease under which it was retired, or zero.
func (s *Snapshot) SignUntil(k *Key) time.Time {
	switch {
	case k.isActive():
		return s.Lease
	case !k.Retired.IsZero():
		return k.SignUntil
	}
	return time.Time{}
}

// WaitingFor names the required targets that have not been read back with the
// key, sorted.
func (s *Snapshot) WaitingFor(k *Key) []string {
	var names []string
	for _, t := range s.Config.Targets {
		if _, ok := k.Confirmed[t.Name]; t.Required && !ok {
			names = append(names, t.Name)
		}
	}
	return names
}

// SafeAt is when a standby may become active: confirmed by the slowest
// required target, and the lead has passed since. It is zero while a target is behind.
func (s *Snapshot) SafeAt(k *Key, now time.Time) time.Time {
	if len(s.WaitingFor(k)) > 0 {
		return time.Time{}
	}
	slowest := k.Created
	for _, t := range s.Config.Targets {
		if at := k.Confirmed[t.Name]; t.Required && at.After(slowest) {
			slowest = at
		}
	}
	if k.Founding && !s.Config.adopts() {
		return slowest
	}
	return slowest.Add(s.Lead(now))
}

// Expected is when a rotation that is due at a time can be done if all goes
// well: not before the lead of its standby has passed. A young ring whose
// schedule runs soon after its first key waits like that, and nothing is wrong.
func (s *Snapshot) Expected(ring string, due, now time.Time) time.Time {
	if k := s.Standby(ring); k != nil {
		if at := k.Created.Add(s.Lead(now)); at.After(due) {
			return at
		}
	}
	return due
}

// ServeUntil is how long a replica may serve this snapshot without hearing of
// a newer one: until the last token that could be signed under its lease, or
// was signed before by a key that is closed, has expired everywhere.
func (s *Snapshot) ServeUntil() time.Time {
	until := s.Lease.Add(s.longestTail())
	for i := range s.Keys {
		if at := s.Keys[i].WithdrawAt(); s.Keys[i].Revoked.IsZero() && at.After(until) {
			until = at
		}
	}
	return until
}

// longestTail is that of the configuration or of a key that may still sign
// somewhere. A closed one signs nowhere; planner.floor says why its tail does
// not leave the lead at once.
func (s *Snapshot) longestTail() time.Duration {
	tail := s.Config.Timing().Tail
	for i := range s.Keys {
		if s.Keys[i].Closed.IsZero() {
			tail = max(tail, time.Duration(s.Keys[i].Tail))
		}
	}
	return tail
}
