package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// fleet is three replicas of one issuer, whose files are replaced one after the
// other while traffic goes on.
type fleet struct {
	t       *testing.T
	sites   []*vaultSite
	daemons []*daemon
	*traffic
}

// newFleet starts replicas with a clockwork of T 4s and B 5s, so that tail is 6s
// and S 13.125s: a new key waits 16.125s. Traffic asks each for tokens of 3s.
func newFleet(t *testing.T, prepare func(s *vaultSite)) *fleet {
	t.Helper()
	f := &fleet{t: t, sites: replicaSites(t, 3)}
	for _, s := range f.sites {
		s.set("outage_budget", "5s").set("max_token_ttl", "4s").edit(`audiences: ["*"]`, "audiences: [\"*\"]\n    ttl: {default: 3s}")
		prepare(s)
		f.daemons = append(f.daemons, s.start("web"))
	}
	f.traffic = watched(t, f.daemons...)
	return f
}

// set gives a name of the configuration another value, wherever it stands.
func (s *vaultSite) set(name, value string) *vaultSite {
	s.t.Helper()
	line := regexp.MustCompile(`(\b` + name + `: )("[^"]*"|[^,}\n]+)`)
	if !line.MatchString(s.text) {
		s.t.Fatalf("the configuration has no %s:\n%s", name, s.text)
	}
	s.text = line.ReplaceAllString(s.text, "${1}"+value)
	return s
}

// asks adds a caller of every replica with requests of its own.
func (f *fleet) asks(name string, req api.SignRequest) {
	f.without(func() {
		for i, d := range f.daemons {
			f.callers = append(f.callers, caller{fmt.Sprintf("%s %d", name, i), d, req})
		}
	})
}

// leaves ends what asks began; all that was signed is verified to its end.
func (f *fleet) leaves(name string) {
	f.without(func() {
		f.callers = slices.DeleteFunc(f.callers, func(c caller) bool { return strings.HasPrefix(c.name, name+" ") })
	})
}

// replace stops a replica that is out of service, and starts it with another
// file. Its Vault token is gone with it.
func (f *fleet) replace(i int, revise func(s *vaultSite)) {
	f.t.Helper()
	s, old := f.sites[i], f.daemons[i]
	var out []caller
	f.without(func() {
		f.endpoints = slices.DeleteFunc(f.endpoints, func(url string) bool { return url == old.jwksURL() })
		f.callers = slices.DeleteFunc(f.callers, func(c caller) bool {
			if c.daemon == old {
				out = append(out, c)
			}
			return c.daemon == old
		})
	})
	revise(s)
	old.stop()
	if left := s.accessors(); len(left) != 0 {
		f.t.Errorf("replica %d has left %d Vault tokens", i, len(left))
	}
	d := s.start("web")
	f.t.Cleanup(f.end) // before it is stopped
	within(f.t, 10*time.Second, "the endpoint of the new one", func() error {
		if status := getStatus(f.t, d.jwksURL()); status != 200 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	f.daemons[i] = d
	f.without(func() {
		f.endpoints = append(f.endpoints, d.jwksURL())
		for _, c := range out {
			c.daemon = d
			f.callers = append(f.callers, c)
		}
	})
}

// drifts waits until a replica tells how its file differs from what is in force.
func (f *fleet) drifts(i int, differences ...string) {
	f.t.Helper()
	within(f.t, 10*time.Second, fmt.Sprintf("the drift of replica %d", i), func() error {
		said := f.drift(i)
		for _, want := range differences {
			if !strings.Contains(said, want) {
				return fmt.Errorf("no %q in %q", want, said)
			}
		}
		return nil
	})
	f.daemons[i].alarmed("config_drift", true)
}

// driftsNowhere waits until no replica's file is ignored.
func (f *fleet) driftsNowhere() {
	f.t.Helper()
	within(f.t, 10*time.Second, "the end of all drift", func() error {
		for i := range f.daemons {
			if said := f.drift(i); said != "" {
				return fmt.Errorf("replica %d: %s", i, said)
			}
		}
		return nil
	})
}

func (f *fleet) drift(i int) string {
	f.t.Helper()
	_, h, err := f.daemons[i].health("/readyz")
	must(f.t, err)
	for _, r := range h.Reasons {
		if r.Code == "config_drift" {
			return r.Message
		}
	}
	return ""
}

// everywhere waits until something holds of what each replica says.
func (f *fleet) everywhere(limit time.Duration, what string, holds func(is api.Issuer) error) {
	f.t.Helper()
	within(f.t, limit, what, func() error {
		var errs []error
		for i, d := range f.daemons {
			all, err := d.issuers()
			if err == nil {
				err = holds(all.Issuers[0])
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("replica %d: %w", i, err))
			}
		}
		return errors.Join(errs...)
	})
}

// keysOf are the kids of a ring by their states.
func keysOf(is api.Issuer, ring string) map[string][]api.Key {
	out := map[string][]api.Key{}
	for _, r := range is.Rings {
		for _, k := range r.Keys {
			if r.Name == ring {
				out[k.State] = append(out[k.State], k)
			}
		}
	}
	return out
}

// refusal is the problem that a request for a token meets, nil for none.
func (d *daemon) refusal(req api.SignRequest) *api.Problem {
	d.t.Helper()
	_, err := d.token(req)
	var p *api.Problem
	if err != nil && !errors.As(err, &p) {
		d.t.Fatal(err)
	}
	return p
}

// proof is when a standby had been read back everywhere.
func proof(k api.Key) time.Time {
	last := k.CreatedAt
	for _, at := range k.Confirmed {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// bounds are what the manifest says of the life of each key's tokens.
func (s *vaultSite) bounds() map[string]string {
	s.t.Helper()
	doc, _, err := s.document("main", 0)
	must(s.t, err)
	var keys []struct {
		JWK    struct{ Kid string }
		MaxTTL string `json:"max_ttl"`
	}
	must(s.t, json.Unmarshal(doc["keys"], &keys))
	out := map[string]string{}
	for _, k := range keys {
		out[k.JWK.Kid] = k.MaxTTL
	}
	return out
}
