package keyring

import (
	"fmt"
	"slices"
	"time"
)

// due is when a ring has to rotate: at the first run of its schedule after its
// key became active. A ring without an active key is due at once.
func (p *planner) due(r Ring) time.Time {
	active := p.next.Active(r.Name)
	if active == nil || slices.Contains(p.in.Damaged, active.JWK.Kid) {
		return p.in.Now
	}
	return p.in.NextRun(r.Rotate, active.Activated)
}

// overdue raises an alarm for a rotation that has not happened when it was due.
func (p *planner) overdue() {
	for _, r := range p.next.Config.Rings {
		standby, active := p.next.Standby(r.Name), p.next.Active(r.Name)
		if active == nil {
			if p.founded() {
				p.alarm(Alarm{Code: "no_active_key", Ring: r.Name, Message: fmt.Sprintf("ring %q cannot sign yet: %s", r.Name, p.wait(standby))})
			}
			continue
		}
		due := p.due(r)
		if due.IsZero() || !p.in.Now.After(p.next.Expected(r.Name, due, p.in.Now).Add(p.slack())) {
			continue
		}
		p.alarm(Alarm{Code: "rotation_overdue", Ring: r.Name, Kid: active.JWK.Kid, Since: due,
			Message: fmt.Sprintf("ring %q was due to rotate at %s: %s", r.Name, due.Format(time.RFC3339), p.wait(standby))})
	}
}

// slack is how late a rotation may be before it is told: two ticks.
func (p *planner) slack() time.Duration { return 2 * time.Duration(p.next.Config.SyncInterval) }

func (p *planner) wait(standby *Key) string {
	if standby == nil {
		return "it has no standby key yet"
	}
	if missing := p.next.WaitingFor(standby); len(missing) > 0 {
		return fmt.Sprintf("standby key %s is not yet read back from %s", standby.JWK.Kid, Quoted(missing))
	}
	return fmt.Sprintf("standby key %s may sign from %s on", standby.JWK.Kid, atLatest(p.next.SafeAt(standby, p.in.Now)))
}

// wake is the next instant at which time alone makes something due.
func (p *planner) wake() time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if t.After(p.in.Now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if p.yields() {
		consider(p.yieldsUntil())
	}
	if p.founded() {
		consider(p.next.Lease.Add(-p.next.Config.Timing().B).Add(time.Millisecond))
	}
	for _, r := range p.next.Config.Rings {
		consider(p.due(r))
		for _, k := range p.next.standbys(r.Name) {
			consider(p.next.SafeAt(k, p.in.Now))
		}
	}
	for i := range p.next.Keys {
		switch k := &p.next.Keys[i]; {
		case k.Retired.IsZero():
		case k.Closed.IsZero():
			consider(p.closeAt(k).Add(time.Millisecond))
		default:
			consider(k.WithdrawAt())
		}
	}
	return at
}
