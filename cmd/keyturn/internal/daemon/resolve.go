package daemon

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
	"github.com/keyturn/keyturn/signer/profile"
)

// resolve derives every issuer's timing and refuses what cannot keep the
// promise, and profiles that say nothing sound: all faults at once, each with
// its place in the file.
func resolve(cfg *configs.Config) ([]keyring.Config, error) {
	out, faults := judge(cfg)
	return out, configs.JoinFaults(faults)
}

// Judge is what the parts find wrong with a configuration, for configs.Load to
// tell with what it finds itself.
func Judge(cfg *configs.Config) []configs.Fault {
	_, faults := judge(cfg)
	return faults
}

func judge(cfg *configs.Config) (out []keyring.Config, faults []configs.Fault) {
	faults = append(scheduleFaults(cfg), profileFaults(cfg)...)
	for i, issuer := range cfg.Issuers {
		c, gaps, err := resolveIssuer(cfg, issuer)
		if err != nil {
			continue // a schedule, which has been told
		}
		if err := c.Check(gaps); err != nil {
			faults = append(faults, cfg.Fault(fmt.Sprintf("issuers[%d]", i), err))
			continue
		}
		out = append(out, c)
	}
	return out, faults
}

func scheduleFaults(cfg *configs.Config) []configs.Fault {
	var out []configs.Fault
	for i, r := range cfg.Rings {
		if _, err := rotator.Gaps(map[string]string{r.Name: r.Rotate}); err != nil {
			out = append(out, cfg.Fault(fmt.Sprintf("rings[%d].rotate", i), err))
		}
	}
	return out
}

// profileFaults compiles each profile by itself; that no two have one name is
// judged with the file.
func profileFaults(cfg *configs.Config) []configs.Fault {
	if !cfg.Has(configs.Signer) {
		return nil
	}
	var out []configs.Fault
	for i, p := range profiles(cfg) {
		for _, err := range profile.Check(p, known(cfg)) {
			out = append(out, profileFault(cfg, i, err))
		}
	}
	return out
}

var (
	allowItem    = regexp.MustCompile(`^allow item ([0-9]+): `)
	profileField = regexp.MustCompile(`^[a-z]+(_[a-z]+)*(\.[a-z]+(_[a-z]+)*)?: `)
)

// profileFault places what the signer says of a profile: it begins with the
// field, as the file has it.
func profileFault(cfg *configs.Config, i int, err error) configs.Fault {
	place, text := fmt.Sprintf("profiles[%d]", i), err.Error()
	if m := allowItem.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			return cfg.Fault(fmt.Sprintf("%s.allow[%d]", place, n-1), errors.New(text[len(m[0]):]))
		}
	}
	if field := profileField.FindString(text); field != "" {
		return cfg.Fault(place+"."+strings.TrimSuffix(field, ": "), errors.New(text[len(field):]))
	}
	return cfg.Fault(place, err)
}

// Timeline is what the solver derived for one issuer, for people to read.
type Timeline struct {
	Issuer string
	Config keyring.Config
	Timing keyring.Timing
	Rings  []RingTimeline
}

// RingTimeline is the part of one ring.
type RingTimeline struct {
	Ring keyring.Ring
	// Gap is the shortest time between two rotations.
	Gap string
	// Keys is the most that the ring has in the set at once.
	Keys int
}

// timelines derives what `keyturn config check` prints.
func timelines(cfg *configs.Config) ([]Timeline, error) {
	var out []Timeline
	for _, issuer := range cfg.Issuers {
		c, gaps, err := resolveIssuer(cfg, issuer)
		if err != nil {
			return nil, err
		}
		t := Timeline{Issuer: c.Name, Config: c, Timing: c.Timing()}
		for _, r := range c.Rings {
			t.Rings = append(t.Rings, RingTimeline{r, plain(gaps[r.Name]), c.KeysNeeded(gaps[r.Name])})
		}
		out = append(out, t)
	}
	return out, nil
}

func resolveIssuer(cfg *configs.Config, issuer configs.Issuer) (keyring.Config, gapsByRing, error) {
	c := issuer.Keyring(cfg)
	specs := map[string]string{}
	for _, r := range c.Rings {
		specs[r.Name] = r.Rotate
	}
	gaps, err := rotator.Gaps(specs)
	if err != nil {
		return c, nil, fmt.Errorf("issuer %q: %w", issuer.Name, err)
	}
	return c.Resolve(gaps), gaps, nil
}

// String is the timeline as text, the arithmetic included.
func (t Timeline) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuer %s (%s), revision %d\n", t.Issuer, t.Config.URL, t.Config.Revision)
	fmt.Fprintf(&b, "  outage budget %s: signs that long without its store; the lease runs %s to %s ahead\n",
		plain(t.Timing.B), plain(t.Timing.B), plain(t.Timing.B+t.Timing.R))
	fmt.Fprintf(&b, "%s\n", t.Config.Explain())
	for _, r := range t.Rings {
		fmt.Fprintf(&b, "  ring %s: %s, %q, at least %s apart, tokens live up to %s\n", r.Ring.Name, r.Ring.Algorithm, r.Ring.Rotate, r.Gap, plain(time.Duration(r.Ring.MaxTokenTTL)))
		fmt.Fprintf(&b, "    a standby is published for %s before it signs; a retired key stays for up to %s; at most %d keys in the set\n",
			plain(t.Timing.Lead), plain(t.Timing.B+t.Timing.R+t.Timing.Tail), r.Keys)
	}
	fmt.Fprintf(&b, "  after a host's daemon has died, take the host out of service within %s\n", plain(t.Timing.S))
	return b.String()
}
