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
	// Others says that another replica wrote the snapshot: it is likely to be
	// generating the key that is missing, so this one waits a little.
	Others bool
	// Damaged are kids whose private halves were found missing, or not to match
	// their public halves. Such a key does not sign; a standby is replaced.
	Damaged []string
	// Foreign holds, by target, the keys of a set that stands there and that
	// keyturn did not write.
	Foreign map[string][]JWK
	// ClockDoubt says why this replica's clock cannot be trusted now, empty
	// where it can: nothing is written, closed or destroyed by it.
	ClockDoubt string
	// Command is what an operator asks for.
	Command Command
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
	// Halted says that nobody may plan on this manifest now; the alarms say why.
	Halted bool
	// Create are the rings that need a key: deposit the private halves, then
	// plan again with them in Input.Fresh.
	Create []Ring
	// Destroy are the private halves that the given snapshot shows closed.
	Destroy []Half
	// Refused is why the command is not carried out: *NotSafeYetError for a
	// rotation that would break the promise, ErrUnknownRing, ErrUnknownKey,
	// ErrClosed, ErrNoKey; nil where it is, or where there is none.
	Refused error
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
	// KeyReinstated: a retired key signs again, by a rollback or a revocation.
	KeyReinstated EventKind = "key_reinstated"
	KeyRevoked    EventKind = "key_revoked"
	// KeyForced: an operator let a standby sign that was not proven.
	KeyForced EventKind = "key_forced"
	// KeyDamaged: a key is replaced since its private half is missing or wrong.
	// The alarm ends with the key, soon; this stays in the log.
	KeyDamaged EventKind = "key_damaged"
	KeyAdopted EventKind = "key_adopted"
	// ManifestFrozen and ManifestAccepted are written by Freeze and Accept.
	ManifestFrozen   EventKind = "manifest_frozen"
	ManifestAccepted EventKind = "manifest_accepted"
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
		return Outcome{Halted: true, Alarms: []Alarm{{Code: "manifest_schema", Issuer: s.Config.Name, Since: in.Now,
			Message: fmt.Sprintf("the manifest has schema %d and this keyturn writes %d: it reads and signs within the lease, and changes nothing; run a newer keyturn", s.Schema, Schema)}}}
	}
	if s.Frozen != nil {
		return Outcome{Halted: true, Alarms: []Alarm{{Code: "frozen", Issuer: s.Config.Name, Since: s.Frozen.At,
			Message: "the manifest is frozen: " + s.Frozen.Reason}}}
	}
	if out, stop := s.doubt(in); stop {
		return out
	}
	p := &planner{base: s, next: s.Clone(), in: in}
	p.out.Destroy = closedHalves(s)
	p.config()
	p.adopted()
	p.records()
	p.confirm()
	p.command()
	p.standbys()
	if p.founded() {
		p.rotate()
		p.lease()
		p.close()
		p.forget()
	}
	p.overdue()
	p.damaged()
	p.out.Wake = p.wake()
	if p.changed {
		p.next.Generation++
		p.next.WriteID, p.next.WrittenAt = in.WriteID, in.Now
		p.out.Next = p.next
	}
	return p.out
}

// doubt stops a plan whose clock is in doubt: by a clock that is ahead every
// key would close at once, and by one that is behind a lease would last too long.
func (s *Snapshot) doubt(in Input) (Outcome, bool) {
	why := in.ClockDoubt
	if why == "" && s.LeaseFault(in.Now) {
		why = fmt.Sprintf("the lease in the manifest ends at %s, later than any replica with a sound clock would write: the clock here, or there, is wrong", s.Lease.Format(time.RFC3339))
	}
	if why == "" {
		return Outcome{}, false
	}
	return Outcome{Halted: true, Alarms: []Alarm{clockFault(in, s.Config.Name, why)}}, true
}

func clockFault(in Input, issuer, why string) Alarm {
	return Alarm{Code: "clock_fault", Issuer: issuer, Since: in.Now,
		Message: "nothing is written, closed or destroyed by this replica until its clock is confirmed: " + why}
}

// found commits a manifest without keys first: of several replicas that start
// on an empty store exactly one creates it, and only then are halves deposited.
func found(in Input) Outcome {
	if in.ClockDoubt != "" {
		return Outcome{Halted: true, Alarms: []Alarm{clockFault(in, in.File.Name, in.ClockDoubt)}}
	}
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
			case observed && holds && !known && p.isFresh(seen):
				if k.Confirmed == nil {
					k.Confirmed = map[string]time.Time{}
				}
				// Not seen.At: the clock that made it may have been wrong then.
				k.Confirmed[t.Name] = p.in.Now
				p.event(KeyConfirmed, k.Ring, k.JWK.Kid, t.Name)
			case t.SelfServed() && !p.next.Config.SingleProcess:
				// Another replica confirmed it at its own target. That this one
				// lags is covered by S; it would void the record with each look.
			case observed && !holds && known && seen.At.After(at):
				delete(k.Confirmed, t.Name)
				p.event(ConfirmationVoided, k.Ring, k.JWK.Kid, t.Name)
			}
		}
	}
}

// isFresh reports a read-back that still tells what consumers fetch.
func (p *planner) isFresh(seen Observation) bool {
	c := &p.next.Config
	return p.in.Now.Sub(seen.At) <= time.Duration(c.ConsumerCache+2*c.SyncInterval)
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
		if p.history(&k) {
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

// history reports a key that nothing depends on any more. One that was revoked
// stays for ever.
func (p *planner) history(k *Key) bool {
	switch {
	case k.Destroyed.IsZero():
		return false
	case !k.Revoked.IsZero():
		return false // its kid must not come back, not even as an adopted key
	}
	return k.State(p.in.Now) == Withdrawn
}
