package keyring

import (
	"fmt"
	"slices"
	"time"
)

// keepWithdrawn is how many withdrawn keys of a ring the manifest remembers,
// for people who look.
const keepWithdrawn = 4

// Input is what Plan is told beside the snapshot: the clock read once, what was
// observed, and what operators asked for.
type Input struct {
	Now time.Time
	// WriteID and Lineage are fresh random strings, for the write that Plan may
	// propose and for the issuer that it may found.
	WriteID, Lineage string
	// File is this replica's configuration of the issuer, resolved and checked.
	File Config
	// NextRun is when a schedule runs next after a time; zero for never. Plan
	// calls it with the schedules that are in force.
	NextRun func(schedule string, after time.Time) time.Time
	// Seen holds the latest read-back of each target, by name.
	Seen map[string]Observation
	// Publishes says that this replica serves the set itself, and so reads its
	// own targets back. A rotator that runs apart sees the shared ones only.
	Publishes bool
	// Fresh are new keys whose private halves have been deposited.
	Fresh []Fresh
	// Orphans are kids of private halves that no manifest has named for so long
	// that nobody can be about to.
	Orphans []string
	// Gone are kids whose private halves were read back as destroyed.
	Gone []string
	// Rotate names the rings that an operator wants rotated now.
	Rotate []string
}

// Fresh is a key whose private half has been deposited and that no manifest names yet.
type Fresh struct {
	Ring    string
	JWK     JWK
	Custody string
	Handle  string
}

// Outcome is what Plan decided.
type Outcome struct {
	// Next is the snapshot to write, nil for nothing to write.
	Next *Snapshot
	// Events tell what Next changes.
	Events []Event
	// Create are the rings that need a key: deposit the private halves, then
	// plan again with them in Input.Fresh.
	Create []Ring
	// Destroy are the private halves that the given snapshot shows closed.
	Destroy []Half
	// Refused are rotations that were asked for and would break the promise, by ring.
	Refused map[string]error
	Alarms  []Alarm
	// Wake is the next instant at which time alone makes something due.
	Wake time.Time
}

// Half names a private half in its custody.
type Half struct{ Kid, Custody, Handle string }

// EventKind names a change of the manifest. The names are stable: logs use them.
type EventKind string

// The kinds of events.
const (
	IssuerFounded      EventKind = "issuer_founded"
	ConfigAdopted      EventKind = "config_adopted"
	LeaseRenewed       EventKind = "lease_renewed"
	KeyCreated         EventKind = "key_created"
	KeyConfirmed       EventKind = "key_confirmed"
	ConfirmationVoided EventKind = "confirmation_voided"
	KeyActivated       EventKind = "key_activated"
	KeyRetired         EventKind = "key_retired"
	KeyClosed          EventKind = "key_closed"
	KeyDestroyed       EventKind = "key_destroyed"
	KeyForgotten       EventKind = "key_forgotten"
	OrphanClosed       EventKind = "orphan_closed"
	OrphanDestroyed    EventKind = "orphan_destroyed"
)

// Event is one change that a plan makes.
type Event struct {
	Kind   EventKind
	Ring   string
	Kid    string
	Target string
}

// Plan decides the next step of an issuer's life. It is pure. The snapshot is
// nil when the issuer has no manifest.
//
// Several steps may share one write where each would be safe alone on the
// given snapshot; what must be stored before the next step is left to the next
// call. Planning on its own results with the same input comes to rest after a
// few calls, and at rest it changes nothing.
func Plan(s *Snapshot, in Input) Outcome {
	in.Now = in.Now.UTC().Truncate(time.Millisecond) // as precise as the manifest needs to be
	if s == nil {
		return found(in)
	}
	if s.Schema != Schema {
		return Outcome{Alarms: []Alarm{{Code: "manifest_schema", Issuer: s.Config.Name, Since: in.Now,
			Message: fmt.Sprintf("the manifest has schema %d and this keyturn writes %d: it reads and signs within the lease, and changes nothing; run a newer keyturn", s.Schema, Schema)}}}
	}
	if s.Frozen != nil {
		return Outcome{Alarms: []Alarm{{Code: "frozen", Issuer: s.Config.Name, Since: s.Frozen.At,
			Message: "the manifest is frozen: " + s.Frozen.Reason}}}
	}
	p := &planner{base: s, next: s.Clone(), in: in}
	p.out.Destroy = closedHalves(s)
	p.config()
	p.records()
	p.confirm()
	p.standbys()
	if p.founded() {
		p.rotate()
		p.lease()
		p.close()
		p.forget()
	} else {
		for _, ring := range in.Rotate {
			p.refuse(ring, &NotSafeYetError{Ring: ring})
		}
	}
	p.overdue()
	p.out.Wake = p.wake()
	if p.changed {
		p.next.Generation++
		p.next.WriteID, p.next.WrittenAt = in.WriteID, in.Now
		p.out.Next = p.next
	}
	return p.out
}

// found commits a manifest without keys first: of several replicas that start
// on an empty store exactly one creates it, and only then are halves deposited.
func found(in Input) Outcome {
	next := &Snapshot{
		Schema: Schema, Lineage: in.Lineage, Generation: 1, WriteID: in.WriteID, WrittenAt: in.Now,
		Config: in.File.Clone(), Keys: []Key{},
	}
	sortConfig(&next.Config)
	return Outcome{Next: next, Events: []Event{{Kind: IssuerFounded}}}
}

// closedHalves lists what may be destroyed: recorded as closed in a snapshot
// that is stored, so that no rollback and no deposit of the kid is accepted any more.
func closedHalves(s *Snapshot) []Half {
	var out []Half
	for i := range s.Keys {
		if k := &s.Keys[i]; !k.Closed.IsZero() && k.Destroyed.IsZero() {
			out = append(out, Half{k.JWK.Kid, k.Custody, k.Handle})
		}
	}
	for _, o := range s.Orphans {
		out = append(out, Half{Kid: o.Kid, Handle: o.Kid})
	}
	return out
}

// planner carries one call of Plan. base is what is stored, next what will be.
type planner struct {
	base, next *Snapshot
	in         Input
	out        Outcome
	changed    bool
}

func (p *planner) event(kind EventKind, ring, kid, target string) {
	p.changed = true
	p.out.Events = append(p.out.Events, Event{kind, ring, kid, target})
}

func (p *planner) alarm(a Alarm) {
	a.Issuer = p.base.Config.Name
	if a.Since.IsZero() {
		a.Since = p.in.Now
	}
	p.out.Alarms = append(p.out.Alarms, a)
}

// founded reports whether the issuer's first keys are in the manifest: the
// lease is written with them and never before.
func (p *planner) founded() bool { return !p.next.Lease.IsZero() }

// records writes down what the custody was seen to hold, or no longer.
func (p *planner) records() {
	for i := range p.next.Keys {
		k := &p.next.Keys[i]
		if !k.Closed.IsZero() && k.Destroyed.IsZero() && slices.Contains(p.in.Gone, k.JWK.Kid) {
			k.Destroyed = p.in.Now
			p.event(KeyDestroyed, k.Ring, k.JWK.Kid, "")
		}
	}
	kept := p.next.Orphans[:0]
	for _, o := range p.next.Orphans {
		if slices.Contains(p.in.Gone, o.Kid) {
			p.event(OrphanDestroyed, "", o.Kid, "")
			continue
		}
		kept = append(kept, o)
	}
	p.next.Orphans = kept
	for _, kid := range p.in.Orphans {
		named := p.next.Key(kid) != nil || slices.ContainsFunc(p.next.Orphans, func(o Orphan) bool { return o.Kid == kid })
		fresh := slices.ContainsFunc(p.in.Fresh, func(f Fresh) bool { return f.JWK.Kid == kid })
		if !named && !fresh && !slices.Contains(p.in.Gone, kid) {
			p.next.Orphans = append(p.next.Orphans, Orphan{Kid: kid, Closed: p.in.Now})
			p.event(OrphanClosed, "", kid, "")
		}
	}
}

// confirm records what was read back, per standby and target, and voids a
// record that a later read-back contradicts.
func (p *planner) confirm() {
	for i := range p.next.Keys {
		k := &p.next.Keys[i]
		if !k.isStandby() {
			continue
		}
		for _, t := range p.next.Config.Targets {
			at, known := k.Confirmed[t.Name]
			seen, observed := p.in.Seen[t.Name]
			if !p.in.Publishes && t.SelfServed() {
				// Nobody here can read what other replicas serve; S in the lead
				// covers the slowest of them, counted from now at the latest.
				seen, observed = Observation{At: p.in.Now, Kids: []string{k.JWK.Kid}}, true
			}
			switch holds := slices.Contains(seen.Kids, k.JWK.Kid); {
			case observed && holds && !known:
				if k.Confirmed == nil {
					k.Confirmed = map[string]time.Time{}
				}
				k.Confirmed[t.Name] = seen.At.UTC()
				p.event(KeyConfirmed, k.Ring, k.JWK.Kid, t.Name)
			case observed && !holds && known && seen.At.After(at):
				delete(k.Confirmed, t.Name)
				p.event(ConfirmationVoided, k.Ring, k.JWK.Kid, t.Name)
			}
		}
	}
}

// lease renews the issuer's lease when less than B is left, to B + R ahead. It
// is never shortened: replicas that are cut off hold the old one.
func (p *planner) lease() {
	t := p.next.Config.Timing()
	if p.next.Lease.Sub(p.in.Now) < t.B {
		p.next.Lease = p.in.Now.Add(t.B + t.R)
		p.event(LeaseRenewed, "", "", "")
	}
}

// close records that a retired key will never sign again. Only then may its
// half be destroyed, and only then does it leave the set by age: a rollback
// that another replica plans meanwhile fails its check-and-set.
func (p *planner) close() {
	for i := range p.next.Keys {
		if k := &p.next.Keys[i]; p.closable(k) {
			k.Closed = p.in.Now
			p.event(KeyClosed, k.Ring, k.JWK.Kid, "")
		}
	}
	if p.changed {
		p.floor()
	}
}

func (p *planner) closable(k *Key) bool {
	// What this very plan retires is closed by a later one: the retirement has
	// to be stored first.
	before := p.base.Key(k.JWK.Kid)
	return !k.Retired.IsZero() && k.Closed.IsZero() && before != nil && !before.Retired.IsZero() &&
		p.in.Now.After(p.closeAt(k))
}

func (p *planner) closeAt(k *Key) time.Time {
	return k.SignUntil.Add(time.Duration(p.next.Config.ClockSkew))
}

// forget drops keys that are withdrawn and destroyed, but for the last few of each ring.
func (p *planner) forget() {
	kept := p.next.Keys[:0:0]
	newer := map[string]int{} // withdrawn keys seen so far, newest first
	for i := len(p.next.Keys) - 1; i >= 0; i-- {
		k := p.next.Keys[i]
		if k.State(p.in.Now) == Withdrawn && !k.Destroyed.IsZero() {
			if newer[k.Ring]++; newer[k.Ring] > keepWithdrawn {
				p.event(KeyForgotten, k.Ring, k.JWK.Kid, "")
				continue
			}
		}
		kept = append(kept, k)
	}
	slices.Reverse(kept)
	p.next.Keys = kept
}

// due is when a ring has to rotate: at the first run of its schedule after its
// key became active. A ring without an active key is due at once.
func (p *planner) due(r Ring) time.Time {
	active := p.next.Active(r.Name)
	if active == nil {
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
		return fmt.Sprintf("standby key %s is not yet read back from %q", standby.JWK.Kid, missing)
	}
	return fmt.Sprintf("standby key %s may sign from %s on", standby.JWK.Kid, p.next.SafeAt(standby, p.in.Now).Format(time.RFC3339))
}

// wake is the next instant at which time alone makes something due.
func (p *planner) wake() time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if t.After(p.in.Now) && (at.IsZero() || t.Before(at)) {
			at = t
		}
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
