package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// rollingTail and rollingLead are those of newFleet's clockwork.
const (
	rollingTail = 6 * time.Second
	rollingLead = 16125 * time.Millisecond
)

// withRing adds a ring of its own profile.
func (s *vaultSite) withRing(name string) {
	s.t.Helper()
	s.edit("profiles:\n", "  - {name: "+name+", issuer: main, algorithm: ES256, rotate: \"@every 25s\", max_token_ttl: 4s}\nprofiles:\n").
		edit("audit: {", "  - {name: "+name+", ring: "+name+", allow: [{socket: default}], subject: {pattern: \".+\"}, audiences: [\"*\"], ttl: {default: 3s}}\naudit: {")
}

// TestRollingRings: a ring gets another name in one replica's file. Without a
// higher revision that changes nothing but an alarm; with one the old ring is
// drained on all replicas and the new one waits its lead, and so does a ring
// that comes back.
func TestRollingRings(t *testing.T) {
	t.Parallel()
	f := newFleet(t, func(s *vaultSite) {
		s.set("rotate", `"@every 25s"`).withRing("old")
	})
	f.asks("old", ask("old"))
	old := f.signer("old 1")

	renamed := func(s *vaultSite) { s.edit("name: old, ", "name: late, ").edit("ring: old, ", "ring: late, ") }
	f.dropCaller("old 0") // whose profile goes with the name
	f.replace(0, renamed)
	f.drifts(0, "rings.old: only in force", "rings.late: only in the file")
	f.refuses(0, "old", api.Forbidden, "this caller may not use this profile")
	f.refuses(0, "late", api.NoActiveKey, `ring "late" is not in the configuration in force (revision 1 of issuer "main")`)
	f.everywhere(5*time.Second, "the ring that is in force", func(is api.Issuer) error {
		if keys := keysOf(is, "old"); is.Revision != 1 || len(keys["active"]) != 1 || len(keys["standby"]) != 1 || len(keysOf(is, "late")) != 0 {
			return fmt.Errorf("revision %d, keys %+v", is.Revision, keys)
		}
		return nil
	})

	f.leaves("old")
	f.replace(0, func(s *vaultSite) { s.set("revision", "2") })
	drained := f.drained("old")
	if !slices.ContainsFunc(drained, func(k api.Key) bool { return k.Kid == old }) {
		t.Errorf("drained: %+v, and %s signed", drained, old)
	}
	for i := range 2 {
		f.drifts(i+1, "rings.old: only in the file", "rings.late: only in force", "revision 1 is not higher")
		f.refuses(i+1, "old", api.NoActiveKey, `ring "old" is not in the configuration in force (revision 2 of issuer "main")`)
		if status, h, err := f.daemons[i+1].health("/readyz/signer"); err != nil || status != 200 {
			t.Errorf("/readyz/signer of replica %d: %d %+v %v", i+1, status, h, err)
		}
	}
	f.tails(drained)
	f.replace(1, func(s *vaultSite) { renamed(s); s.set("revision", "2") })
	f.replace(2, func(s *vaultSite) { renamed(s); s.set("revision", "2") })
	f.driftsNowhere()
	f.waitsItsLead("late", 40*time.Second)

	// What comes back is new.
	f.replace(1, func(s *vaultSite) { s.withRing("old"); s.set("revision", "3") })
	f.refuses(1, "old", api.NoActiveKey, "")
	f.everywhere(10*time.Second, "the ring that came back", func(is api.Issuer) error {
		for _, k := range keysOf(is, "old")["standby"] {
			if len(k.WaitingFor) == 0 && k.SafeAt.Sub(proof(k)) >= rollingLead && k.Kid != old {
				return nil
			}
		}
		return fmt.Errorf("keys %+v", keysOf(is, "old"))
	})
	f.turned(t)
	root := newSecrets(f.sites[0], "main")
	for _, k := range drained {
		root.end(20*time.Second, k.Kid)
	}
}

func (f *fleet) dropCaller(name string) {
	f.without(func() {
		f.callers = slices.DeleteFunc(f.callers, func(c caller) bool { return c.name == name })
	})
}

// refuses wants a replica to say why a profile cannot be served.
func (f *fleet) refuses(i int, profile string, code api.Code, why string) {
	f.t.Helper()
	if p := f.daemons[i].refusal(ask(profile)); p == nil || p.Code != code || !strings.Contains(p.Detail, why) {
		f.t.Errorf("replica %d, profile %s: %v, want %s: %s", i, profile, p, code, why)
	}
}

// drained waits until no replica has a key of the ring that signs or stands by,
// and returns those that it had.
func (f *fleet) drained(ring string) []api.Key {
	f.t.Helper()
	var keys []api.Key
	f.everywhere(10*time.Second, "the end of ring "+ring, func(is api.Issuer) error {
		states := keysOf(is, ring)
		keys = slices.Concat(states["retired"], states["closed"])
		if is.Revision != 2 || len(states["active"])+len(states["standby"]) != 0 || len(keys) == 0 {
			return fmt.Errorf("revision %d, keys %+v", is.Revision, states)
		}
		return nil
	})
	return keys
}

// tails watches every endpoint: the keys stay until the last token that could
// be signed under their lease has expired everywhere, and leave then.
func (f *fleet) tails(keys []api.Key) {
	f.t.Helper()
	last := time.Time{}
	for _, k := range keys {
		last = maxTime(last, k.SignUntil)
	}
	within(f.t, time.Until(last)+rollingTail+10*time.Second, "the end of the tails", func() error {
		var errs []error
		for i, d := range f.daemons {
			began := time.Now()
			now, err := f.fetch(d.jwksURL())
			if err != nil {
				f.t.Errorf("replica %d: %v", i, err)
			}
			for _, k := range keys {
				there := len(now.keys.Key(k.Kid)) == 1
				if due := k.SignUntil.Add(rollingTail); !there && began.Before(due) && time.Now().Before(due) {
					f.t.Fatalf("replica %d: %s has left the set, and its tail ends at %s", i, k.Kid, due)
				}
				if there {
					errs = append(errs, fmt.Errorf("replica %d still shows %s, which signed until %s", i, k.Kid, k.SignUntil))
				}
			}
		}
		return errors.Join(errs...)
	})
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// waitsItsLead wants nobody to sign for a new ring before consumers know its
// key, and everybody soon after.
func (f *fleet) waitsItsLead(ring string, limit time.Duration) {
	f.t.Helper()
	var first api.SignResponse
	var began time.Time
	within(f.t, limit, "the first token of ring "+ring, func() error {
		began = time.Now()
		tok, err := f.daemons[0].token(ask(ring))
		first = tok
		return err
	})
	m, _ := f.sites[0].manifest("main", 0)
	for _, k := range m.Keys {
		if k.JWK.Kid == first.Kid && (k.Activated.Before(k.Created.Add(rollingLead)) || began.Before(k.Created.Add(rollingLead))) {
			f.t.Errorf("%s of ring %s was made at %s, became active at %s and signed at %s; the lead is %s", first.Kid, ring, k.Created, k.Activated, began, rollingLead)
		}
	}
	for _, d := range f.daemons {
		d.canSign(10*time.Second, ring)
	}
	f.asks(ring, ask(ring))
}
