package keyring

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// config adopts the configuration of this replica's file if its revision is
// higher than the one in force. During a rolling change the replicas' files
// differ; the manifest says which one holds.
func (p *planner) config() {
	file, force := p.in.File.Clone(), p.base.Config
	sortConfig(&file)
	switch diff := Diff(force, file); {
	case file.URL != force.URL:
		p.alarm(Alarm{Code: "config_drift", Message: fmt.Sprintf(
			"the file gives the issuer the URL %q, its tokens say %q: an issuer's URL never changes; give it back, or add a new issuer", file.URL, force.URL)})
	case file.Revision > force.Revision:
		p.adopt(file)
	case len(diff) > 0:
		p.alarm(Alarm{Code: "config_drift", Message: fmt.Sprintf(
			"the file differs from the configuration in force (revision %d) and its revision %d is not higher, so it is ignored: %s; raise the revision to put it in force",
			force.Revision, file.Revision, strings.Join(diff, ", "))})
	}
}

func (p *planner) adopt(file Config) {
	force := p.base.Config
	p.next.Config = file
	keepUnknown(&p.next.Config, force)
	p.event(ConfigAdopted, "", "", "")
	p.floor() // before anything asks for the lead

	tail := Duration(file.Timing().Tail)
	for i := range p.next.Keys {
		k := &p.next.Keys[i]
		r, known := file.Ring(k.Ring)
		switch {
		case !k.Retired.IsZero() || !k.Revoked.IsZero():
		case !known && k.isActive(): // drained: no renewal, its tail follows
			p.retire(k, p.base.Lease)
		case !known:
			p.retire(k, p.in.Now)
		default: // raised before anybody signs longer, never lowered
			k.MaxTTL, k.Tail = max(k.MaxTTL, r.MaxTokenTTL), max(k.Tail, tail)
		}
		if file.adopts() && k.Activated.IsZero() {
			k.Founding = false // consumers have copies of the foreign set, whatever a later revision says
		}
		for name := range k.Confirmed {
			if !sameDuty(force, file, name) {
				delete(k.Confirmed, name)
			}
		}
	}
}

// keepUnknown carries over the members that only a newer keyturn knows.
func keepUnknown(c *Config, from Config) {
	c.extra = from.extra
	for i := range c.Targets {
		if j := slices.IndexFunc(from.Targets, func(t Target) bool { return t.Name == c.Targets[i].Name }); j >= 0 {
			c.Targets[i].extra = from.Targets[j].extra
		}
	}
	for i := range c.Rings {
		if r, ok := from.Ring(c.Rings[i].Name); ok {
			c.Rings[i].extra = r.extra
		}
	}
}

// sameDuty reports whether a target means the same in both configurations. One
// that becomes required, or shows another view, is confirmed anew.
func sameDuty(before, after Config, name string) bool {
	find := func(c Config) (Target, bool) {
		i := slices.IndexFunc(c.Targets, func(t Target) bool { return t.Name == name })
		if i < 0 {
			return Target{}, false
		}
		return c.Targets[i], true
	}
	a, okA := find(before)
	b, okB := find(after)
	return okA && okB && a.Kind == b.Kind && a.View == b.View && (a.Required || !b.Required)
}

// floor keeps the old span in the lead where this write lowers it, for as long
// as a replica that has not heard of the write may act on what was before:
// C + old S + 2E. A revision lowers it, and so does the closing of the last
// key whose tokens lived longer.
func (p *planner) floor() {
	before, after := p.base.Config, p.next.Config
	tail := p.next.longestTail()
	span := after.span(tail)
	raised := max(0, tail-p.base.longestTail())
	p.next.Floor = nil
	if f := p.base.Floor; f != nil && p.in.Now.Before(f.Until) {
		// The lease may still be the one of the time before the floor, and the
		// longer tails follow it now.
		kept := Floor{Span: f.Span + Duration(raised), Until: f.Until.Add(raised), extra: f.extra}
		if time.Duration(kept.Span) > span {
			p.next.Floor = &kept
		}
	}
	// The old lease with the longer of the tails: a snapshot may have both.
	old := before.span(max(tail, p.base.longestTail()))
	if old <= span {
		return
	}
	old += time.Duration(max(0, before.ClockSkew-after.ClockSkew)) // the E beside C
	if f := p.next.Floor; f != nil {
		old = max(old, time.Duration(f.Span))
	}
	wait := time.Duration(max(before.ConsumerCache, after.ConsumerCache)+2*max(before.ClockSkew, after.ClockSkew)) + old
	p.next.Floor = &Floor{Span: Duration(old), Until: p.in.Now.Add(wait)}
}

// Diff names what differs between two configurations, revision and unknown
// members aside: "rings.web.rotate: 0 3 * * 0 → 0 4 * * 0".
func Diff(a, b Config) []string {
	var out []string
	field := func(name string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s: %v → %v", name, a, b))
		}
	}
	field("url", a.URL, b.URL)
	field("consumer_cache", a.ConsumerCache, b.ConsumerCache)
	field("jwks_max_age", a.JWKSMaxAge, b.JWKSMaxAge)
	field("leeway", a.Leeway, b.Leeway)
	field("outage_budget", a.OutageBudget, b.OutageBudget)
	field("clock_skew", a.ClockSkew, b.ClockSkew)
	field("sync_interval", a.SyncInterval, b.SyncInterval)
	field("max_keys", a.MaxKeys, b.MaxKeys)
	field("single_process", a.SingleProcess, b.SingleProcess)
	out = append(out, diffByName("publish", a.Targets, b.Targets, func(t Target) string { return t.Name }, func(name string, x, y Target) {
		field(name+".kind", x.Kind, y.Kind)
		field(name+".required", x.Required, y.Required)
		field(name+".view", x.View, y.View)
		field(name+".adopt_until", date(x.AdoptUntil), date(y.AdoptUntil))
	})...)
	out = append(out, diffByName("rings", a.Rings, b.Rings, func(r Ring) string { return r.Name }, func(name string, x, y Ring) {
		field(name+".algorithm", x.Algorithm, y.Algorithm)
		field(name+".rsa_bits", x.RSABits, y.RSABits)
		field(name+".custody", x.Custody, y.Custody)
		field(name+".rotate", x.Rotate, y.Rotate)
		field(name+".max_token_ttl", x.MaxTokenTTL, y.MaxTokenTTL)
	})...)
	slices.Sort(out)
	return out
}

func date(t time.Time) string {
	if t.IsZero() {
		return "none"
	}
	return t.UTC().Format(time.RFC3339)
}

// diffByName calls same for the entries that both lists have and returns a
// line for each that only one has.
func diffByName[T any](kind string, a, b []T, nameOf func(T) string, same func(name string, x, y T)) []string {
	var out []string
	index := func(list []T, name string) int {
		return slices.IndexFunc(list, func(t T) bool { return nameOf(t) == name })
	}
	for _, x := range a {
		if i := index(b, nameOf(x)); i >= 0 {
			same(kind+"."+nameOf(x), x, b[i])
		} else {
			out = append(out, fmt.Sprintf("%s.%s: only in force", kind, nameOf(x)))
		}
	}
	for _, y := range b {
		if index(a, nameOf(y)) < 0 {
			out = append(out, fmt.Sprintf("%s.%s: only in the file", kind, nameOf(y)))
		}
	}
	return out
}

// LeaseFault reports a lease further ahead than any replica with a sound clock
// would write: this clock, or that one, is wrong, and signing under it could
// outlive the published keys.
func (s *Snapshot) LeaseFault(now time.Time) bool {
	b := s.Config.OutageBudget // B; R is an eighth of it
	furthest := time.Duration(b + b/8 + s.Config.SyncInterval + s.Config.ClockSkew)
	if s.Floor != nil && now.Before(s.Floor.Until) {
		furthest = max(furthest, time.Duration(s.Floor.Span))
	}
	return s.Lease.After(now.Add(furthest))
}
