package keyring

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Limits that do not follow from anything else.
const (
	MaxOutageBudget = 24 * time.Hour
	MinLeeway       = time.Second
	DefaultMaxKeys  = 100 // AWS takes at most 100
)

// Timing is what follows from an issuer's configuration. The letters are those
// of docs/life-of-a-key.md.
type Timing struct {
	T    time.Duration // the issuer's longest token life
	B    time.Duration // outage budget
	R    time.Duration // B/8: how much a renewed lease exceeds B
	Tail time.Duration // T + E + λ: how long a key stays after sign_until
	// S = B + R + sync + T + 2E + λ bounds how long a replica that is cut off
	// serves an old set.
	S time.Duration
	// Lead = C + E, and + S where replicas serve the set themselves: how long a
	// standby has been confirmed before it signs.
	Lead time.Duration
}

// Timing derives the times of a configuration.
func (c *Config) Timing() Timing {
	var t Timing
	for _, r := range c.Rings {
		t.T = max(t.T, time.Duration(r.MaxTokenTTL))
	}
	e, leeway := time.Duration(c.ClockSkew), time.Duration(c.Leeway)
	t.B = time.Duration(c.OutageBudget)
	t.R = t.B / 8
	t.Tail = t.T + e + leeway
	t.S = c.span(t.Tail)
	t.Lead = c.lead(t.S)
	return t
}

// span is S for a tail: B + R + sync + E + tail, and tail = T + E + λ.
func (c *Config) span(tail time.Duration) time.Duration {
	b := time.Duration(c.OutageBudget)
	return b + b/8 + time.Duration(c.SyncInterval) + time.Duration(c.ClockSkew) + tail
}

func (c *Config) lead(span time.Duration) time.Duration {
	lead := time.Duration(c.ConsumerCache + c.ClockSkew)
	if c.SelfServed() && !c.SingleProcess {
		lead += span
	}
	return lead
}

// Lead is the lead in force at a time. A replica that is cut off may serve an
// old set for as long as the longest tail in it says, and for as long as the
// configuration said under which its lease was written; both count.
func (s *Snapshot) Lead(now time.Time) time.Duration {
	span := s.Config.span(s.longestTail())
	if s.Floor != nil && now.Before(s.Floor.Until) {
		span = max(span, time.Duration(s.Floor.Span))
	}
	return s.Config.lead(span)
}

// Resolve fills what a file may leave out: the outage budget is a third of the
// shortest gap between two rotations of any ring, at most 24 hours, in whole
// seconds where it has some.
func (c Config) Resolve(gaps map[string]time.Duration) Config {
	c = c.Clone()
	sortConfig(&c)
	if c.MaxKeys == 0 {
		c.MaxKeys = DefaultMaxKeys
	}
	if c.OutageBudget == 0 && len(gaps) > 0 {
		b := MaxOutageBudget
		for _, gap := range gaps {
			b = min(b, gap/3)
		}
		if b > time.Second {
			b = b.Truncate(time.Second)
		}
		c.OutageBudget = Duration(b)
	}
	return c
}

// Check refuses a resolved configuration that cannot keep the promise, all
// faults at once. gaps holds, by ring, the shortest time between two runs of its schedule.
func (c *Config) Check(gaps map[string]time.Duration) error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	for _, d := range []struct {
		name  string
		value Duration
	}{{"consumer_cache", c.ConsumerCache}, {"jwks_max_age", c.JWKSMaxAge}, {"clock_skew", c.ClockSkew}, {"sync_interval", c.SyncInterval}, {"outage_budget", c.OutageBudget}} {
		if d.value <= 0 {
			fault("%s is %s: it must be positive", d.name, d.value)
		}
	}
	if time.Duration(c.Leeway) < MinLeeway {
		fault("leeway is %s: consumers round times to seconds, so at least %s", c.Leeway, MinLeeway)
	}
	if c.ConsumerCache < c.JWKSMaxAge {
		fault("consumer_cache (%s) is shorter than jwks_max_age (%s): consumers keep the set for at least what the header says; raise the first or lower the second", c.ConsumerCache, c.JWKSMaxAge)
	}
	if time.Duration(c.OutageBudget) > MaxOutageBudget {
		fault("outage_budget is %s: at most %s", c.OutageBudget, MaxOutageBudget)
	}
	if least := 3*c.SyncInterval + 2*c.ClockSkew; c.OutageBudget > 0 && c.OutageBudget < least {
		fault("outage_budget (%s) is too short to be renewed in time: at least 3 × sync_interval (%s) + 2 × clock_skew (%s) = %s; lower these, or rotate less often", c.OutageBudget, c.SyncInterval, c.ClockSkew, least)
	}
	if c.Revision < 1 {
		fault("revision is %d: start at 1 and raise it with every change", c.Revision)
	}
	if len(c.Rings) == 0 {
		fault("no ring belongs to this issuer: add one under rings with issuer: %s", c.Name)
	}
	if !slices.ContainsFunc(c.Targets, func(t Target) bool { return t.Required }) {
		fault("no required target: without a read-back nothing is known to be published, so no key may sign; add one under publish or confirm")
	}
	for _, t := range c.Targets {
		if t.Required && len(c.Rings) > 0 && !slices.ContainsFunc(c.Rings, func(r Ring) bool { return t.View.Shows(r.Algorithm) }) {
			fault("target %q: the view %q shows no key of any ring, and an empty set is never published: leave the view out, or say required: false", t.Name, string(t.View))
		}
	}
	for _, r := range c.Rings {
		if err := r.Algorithm.Check(r.RSABits); err != nil {
			fault("ring %q: %w", r.Name, err)
		}
		if time.Duration(r.MaxTokenTTL) < time.Second {
			fault("ring %q: max_token_ttl is %s: at least 1s", r.Name, r.MaxTokenTTL)
		}
	}
	if len(errs) == 0 { // the arithmetic means something only for sound values
		errs = append(errs, c.checkSchedules(gaps)...)
	}
	if len(errs) > 0 {
		return fmt.Errorf("issuer %q: %w", c.Name, errors.Join(errs...))
	}
	return nil
}

// margin is what a rotation needs beside the lead: a tick to make the standby,
// one to publish and confirm it, one to notice that it is due.
func (c *Config) margin() time.Duration { return 3 * time.Duration(c.SyncInterval) }

func (c *Config) checkSchedules(gaps map[string]time.Duration) []error {
	var errs []error
	t := c.Timing()
	keys := 0
	for _, r := range c.Rings {
		gap := gaps[r.Name]
		if need := t.Lead + c.margin(); gap < need {
			errs = append(errs, fmt.Errorf("ring %q: schedule %q leaves %s between two rotations, and a new key needs %s before it may sign:\n%s\n%s",
				r.Name, r.Rotate, gap, need, c.Explain(), c.advise(r.Name, gaps)))
			continue
		}
		keys += c.KeysNeeded(gap)
	}
	if keys > c.MaxKeys {
		errs = append(errs, fmt.Errorf("the set would hold up to %d keys, max_keys is %d: rotate less often, or lower max_token_ttl (%s) or outage_budget (%s)", keys, c.MaxKeys, t.T, t.B))
	}
	return errs
}

// KeysNeeded is the most keys that a ring with this gap has in the set at once:
// the active one, a standby, another while the algorithm changes, and those that retire.
func (c *Config) KeysNeeded(gap time.Duration) int {
	return notRetiring + int((c.stay()+gap-1)/gap)
}

// notRetiring is how many keys of a ring are in the set beside those that retire.
const notRetiring = 3

// stay is how long a key stays in the set after its successor became active.
func (c *Config) stay() time.Duration {
	t := c.Timing()
	return t.B + t.R + t.Tail + time.Duration(c.ClockSkew) + time.Duration(c.SyncInterval)
}

// Explain shows how the lead was derived, a line a step.
func (c *Config) Explain() string {
	t := c.Timing()
	var b strings.Builder
	fmt.Fprintf(&b, "  tail = max_token_ttl %s + clock_skew %s + leeway %s = %s\n", t.T, c.ClockSkew, c.Leeway, t.Tail)
	switch {
	case !c.SelfServed():
		fmt.Fprintf(&b, "  lead = consumer_cache %s + clock_skew %s = %s", c.ConsumerCache, c.ClockSkew, t.Lead)
	case c.SingleProcess:
		fmt.Fprintf(&b, "  lead = consumer_cache %s + clock_skew %s = %s (store local: one process, nothing to be cut off from)", c.ConsumerCache, c.ClockSkew, t.Lead)
	default:
		fmt.Fprintf(&b, "  S    = outage_budget %s + its eighth %s + sync_interval %s + clock_skew %s + tail %s = %s (how long a replica that is cut off may serve an old set)\n",
			t.B, t.R, c.SyncInterval, c.ClockSkew, t.Tail, t.S)
		fmt.Fprintf(&b, "  lead = consumer_cache %s + clock_skew %s + S %s = %s", c.ConsumerCache, c.ClockSkew, t.S, t.Lead)
	}
	return b.String()
}

// advise says which single change would make the lead of a ring fit, and none
// that would ask for too many keys instead.
func (c *Config) advise(ring string, gaps map[string]time.Duration) string {
	t, gap := c.Timing(), gaps[ring]
	others := 0
	for _, r := range c.Rings {
		if g := gaps[r.Name]; r.Name != ring && g > 0 {
			others += c.KeysNeeded(g)
		}
	}
	var fits []string
	if room := c.MaxKeys - others - notRetiring; room > 0 {
		apart := max(t.Lead+c.margin(), (c.stay()+time.Duration(room)-1)/time.Duration(room))
		apart = (apart + time.Second - 1).Truncate(time.Second)
		// The outage budget is named, because where the file leaves it out it
		// would grow with the gap.
		fits = append(fits, fmt.Sprintf("rotate at least %s apart with outage_budget: %s", apart, c.OutageBudget))
	}
	lower := func(name string, value, least time.Duration, set func(*Config, Duration)) {
		value = value.Truncate(time.Second)
		changed := c.Clone()
		set(&changed, Duration(value))
		if value >= least && gap >= changed.Timing().Lead+changed.margin() && others+changed.KeysNeeded(gap) <= c.MaxKeys {
			fits = append(fits, fmt.Sprintf("%s: %s", name, value))
		}
	}
	over := t.Lead + c.margin() - gap
	lower("consumer_cache", time.Duration(c.ConsumerCache)-over, time.Duration(c.JWKSMaxAge), func(c *Config, v Duration) { c.ConsumerCache = v })
	lower("max_token_ttl", t.T-over, time.Second, func(c *Config, v Duration) {
		for i := range c.Rings {
			c.Rings[i].MaxTokenTTL = min(c.Rings[i].MaxTokenTTL, v)
		}
	})
	// Its eighth goes with it; the nanosecond is for the rounding.
	lower("outage_budget", t.B-over*8/9-1, time.Duration(3*c.SyncInterval+2*c.ClockSkew), func(c *Config, v Duration) { c.OutageBudget = v })
	if len(fits) == 0 {
		return "  no single change would fit: rotate less often, and lower max_token_ttl or raise max_keys"
	}
	return "  any of these would fit: " + strings.Join(fits, " · ")
}
