package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// times are what replicas may differ in during a rolling change, in seconds.
type times struct{ revision, c, e, leeway, b, t int64 }

func (v times) into(s *vaultSite) {
	s.set("revision", fmt.Sprint(v.revision))
	for name, n := range map[string]int64{"consumer_cache": v.c, "clock_skew": v.e, "leeway": v.leeway, "outage_budget": v.b, "max_token_ttl": v.t} {
		s.set(name, fmt.Sprintf("%ds", n))
	}
}

// holdEverywhere waits until every replica says that these are in force.
func (v times) holdEverywhere(f *fleet) {
	f.t.Helper()
	f.everywhere(10*time.Second, fmt.Sprintf("revision %d", v.revision), func(is api.Issuer) error {
		t := is.Timing
		got := times{is.Revision, t.ConsumerCacheSeconds, t.ClockSkewSeconds, t.LeewaySeconds, t.OutageBudgetSeconds, is.Rings[0].MaxTokenTTLSeconds}
		if got != v {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
}

// TestRollingTiming: replicas whose files differ in every time that counts.
// What the manifest says holds on all of them until a higher revision wins;
// longer tokens are signed after that and not before; what was lowered enters
// the lead late.
func TestRollingTiming(t *testing.T) {
	t.Parallel()
	first := times{revision: 1, c: 2, e: 1, leeway: 1, b: 5, t: 4}
	raised := times{revision: 2, c: 3, e: 2, leeway: 2, b: 6, t: 6}  // S 19.25s, lead 24.25s
	lowered := times{revision: 3, c: 2, e: 1, leeway: 1, b: 5, t: 4} // S 13.125s, lead 16.125s
	f := newFleet(t, func(s *vaultSite) { s.edit("@every 28s", "@every 27s") })
	long := ask("web")
	long.TTLSeconds = new(int64(raised.t))

	// The new values without a higher revision, on one replica after the other.
	unraised := raised
	unraised.revision = first.revision
	for i := range f.daemons {
		f.replace(i, unraised.into)
		f.drifts(i, "revision 1 is not higher, so it is ignored", "raise the revision", "rings.web.max_token_ttl: 4s → 6s",
			"consumer_cache: 2s → 3s", "clock_skew: 1s → 2s", "leeway: 1s → 2s", "outage_budget: 5s → 6s")
		first.holdEverywhere(f)
		f.refusesLong(long, f.daemons...)
	}

	// A higher revision on one of them wins on all: the files of the others say
	// the same by now.
	f.replace(1, raised.into)
	raised.holdEverywhere(f)
	f.driftsNowhere()
	for i, d := range f.daemons {
		if p := d.refusal(long); p != nil {
			t.Errorf("replica %d refuses %ds after the higher revision: %v", i, raised.t, p)
		}
	}
	f.asks("long", long) // and they are verified to their end
	time.Sleep(2 * time.Second)
	f.leaves("long")

	f.lowers(lowered)
	for i := range 2 {
		f.drifts(i, "in force (revision 3)", "is not higher, so it is ignored", "rings.web.max_token_ttl: 4s → 6s", "clock_skew: 1s → 2s", "outage_budget: 5s → 6s")
		f.replace(i, lowered.into)
		f.refusesLong(long, f.daemons[i]) // by its profile: the key itself may sign as long as ever
	}
	f.driftsNowhere()
	// C + old S + 2E after the write what was lowered is in the lead. Keys of
	// before have the longer tail until they are closed: S is 17.125s.
	f.everywhere(60*time.Second, "a shorter lead", func(is api.Issuer) error {
		if is.Timing.LeadSeconds > 21 {
			return fmt.Errorf("%ds", is.Timing.LeadSeconds)
		}
		return nil
	})
	f.turned(t)
}

// refusesLong wants replicas to refuse tokens that live too long.
func (f *fleet) refusesLong(long api.SignRequest, replicas ...*daemon) {
	f.t.Helper()
	for _, d := range replicas {
		if p := d.refusal(long); p == nil || p.Code != api.TTLTooLong {
			f.t.Errorf("replica %d, asked for %ds: %v, want %s", slices.Index(f.daemons, d), *long.TTLSeconds, p, api.TTLTooLong)
		}
	}
}

// lowers gives one replica the lower values: all that a standby waited for
// before it still waits for, and the keys that are made now sign no longer than
// that.
func (f *fleet) lowers(v times) {
	f.t.Helper()
	known := f.sites[0].bounds()
	f.replace(2, v.into)
	v.holdEverywhere(f)
	// 20.25s is the old S with the E by which the skew was lowered; C and E are the new.
	const late = 20250*time.Millisecond + 3*time.Second
	f.everywhere(5*time.Second, "the old lead", func(is api.Issuer) error {
		if is.Timing.LeadSeconds != 24 {
			return fmt.Errorf("a lead of %ds", is.Timing.LeadSeconds)
		}
		for _, k := range keysOf(is, "web")["standby"] {
			if len(k.WaitingFor) == 0 && k.SafeAt.Sub(proof(k)) != late {
				return fmt.Errorf("the standby is safe %s after its proof, want %s", k.SafeAt.Sub(proof(k)), late)
			}
		}
		return nil
	})
	for kid, most := range f.sites[0].bounds() {
		if before, found := known[kid]; found && most != before {
			f.t.Errorf("the tokens of %s may live %s, before the change %s", kid, most, before)
		}
	}
}

// turned wants a rotation to have happened meanwhile, or waits for it.
func (f *fleet) turned(t *testing.T) {
	t.Helper()
	within(t, 60*time.Second, "a rotation", func() error {
		for i := range f.daemons {
			if kids := f.signers(fmt.Sprint("replica ", i)); len(kids) < 2 {
				return fmt.Errorf("replica %d signed with %v", i, kids)
			}
		}
		return nil
	})
	f.end()
}
