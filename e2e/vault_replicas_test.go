package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// TestVaultReplicas starts three replicas on an empty mount at the same
// instant, several times over: Vault hangs while they come, so that all that
// they ask for is answered at once. They make one lineage, with one active and
// one standby key; the last three then turn the key over together.
func TestVaultReplicas(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	for round := range 4 {
		mount := fmt.Sprintf("replicas-%d", round)
		server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
		sites, daemons := startTogether(t, server, mount)
		root := newSecrets(sites[0], "main")
		agree(t, daemons, root)
		if round == 3 {
			turnTogether(t, daemons, root)
		}
		for _, d := range daemons {
			d.stop()
		}
		oneChain(t, sites[0])
	}
}

func startTogether(t *testing.T, server *vaulttest.Server, mount string) ([]*vaultSite, []*daemon) {
	t.Helper()
	var sites []*vaultSite
	for i := range 3 {
		s := newVaultSite(t, server, mount, "all")
		s.edit("timeout: 2s", "timeout: 10s")
		sites = append(sites, s)
		if i > 0 { // one issuer, whoever serves it
			s.edit("url: http://"+s.public, "url: http://"+sites[0].public)
		}
	}
	server.Pause()
	var daemons []*daemon
	for _, s := range sites {
		daemons = append(daemons, s.run())
	}
	for _, d := range daemons {
		d.logged(10*time.Second, `"msg":"started"`)
	}
	time.Sleep(200 * time.Millisecond) // all have asked for their login
	server.Resume()
	for _, d := range daemons {
		d.canSign(30*time.Second, "web")
	}
	return sites, daemons
}

// agree waits until all replicas serve the same bytes and sign with the same
// key, and wants them to know one lineage with one active and one standby key
// whose halves are in Vault. What the losers of a race deposited may be there
// as well, until it is swept.
func agree(t *testing.T, daemons []*daemon, root *secrets) {
	t.Helper()
	within(t, 20*time.Second, "agreement", func() error {
		first, err := agreement(daemons[0])
		for _, d := range daemons[1:] {
			other, otherErr := agreement(d)
			if err != nil || otherErr != nil || first != other {
				return fmt.Errorf("%s %v, %s %v", first, err, other, otherErr)
			}
		}
		root.collect()
		var kids []string
		for _, state := range []string{"active", "standby"} {
			if k, found := daemons[0].key("web", state); found {
				kids = append(kids, k.Kid)
			}
		}
		halves := root.kids()
		if len(kids) != 2 || !slices.Contains(halves, kids[0]) || !slices.Contains(halves, kids[1]) {
			return fmt.Errorf("halves %v, active and standby %v", halves, kids)
		}
		return nil
	})
}

// agreement is what all replicas must have in common: lineage, states of the
// keys, who signs, and the bytes of the set.
func agreement(d *daemon) (string, error) {
	all, err := d.issuers()
	if err != nil {
		return "", err
	}
	out := all.Issuers[0].Lineage
	for _, k := range all.Issuers[0].Rings[0].Keys {
		out += " " + k.State + ":" + k.Kid
	}
	tok, err := d.token(ask("web"))
	if err != nil {
		return "", err
	}
	resp, err := http.Get(d.jwksURL())
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	set, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%s signs:%s %d %s", out, tok.Kid, resp.StatusCode, set), err
}

func turnTogether(t *testing.T, daemons []*daemon, root *secrets) {
	t.Helper()
	tr := &traffic{t: t, cache: vaultCache}
	for i, d := range daemons {
		tr.endpoints = append(tr.endpoints, d.jwksURL())
		tr.callers = append(tr.callers, caller{fmt.Sprint("replica ", i), d, ask("web")})
	}
	startTraffic(tr)
	before := tr.signer("replica 0")
	unnamed := unnamed(root)
	if most := 2 * (len(daemons) - 1); len(unnamed) > most {
		t.Errorf("%d halves of the founding have no name, want %d at most", len(unnamed), most)
	}
	counted := 0
	for _, d := range daemons {
		counted += d.rotations("web")
	}
	tr.rotation(60*time.Second, 5*time.Second)
	root.end(30*time.Second, before)
	agree(t, daemons, root)
	swept(t, root, unnamed)
	within(t, 5*time.Second, "the same keys everywhere, each counted once", func() error {
		kids, sum := tr.signers("replica 0"), 0
		for i, d := range daemons {
			sum += d.rotations("web")
			if other := tr.signers(fmt.Sprint("replica ", i)); !slices.Equal(other, kids) {
				return fmt.Errorf("replica %d signed with %v, replica 0 with %v", i, other, kids)
			}
		}
		if turned := len(kids) - 1; sum != counted+turned {
			return fmt.Errorf("the replicas count %d rotations together, want %d more than %d", sum, turned, counted)
		}
		return nil
	})
	tr.end()
}

// unnamed are the halves that the manifest does not name as keys.
func unnamed(root *secrets) []string {
	m, _ := root.manifest("main", 0)
	return slices.DeleteFunc(root.kids(), func(kid string) bool {
		return slices.ContainsFunc(m.Keys, func(k storedKey) bool { return k.JWK.Kid == kid })
	})
}

// swept waits until nothing of these halves is left: a minute's grace, and a
// look every quarter of it.
func swept(t *testing.T, root *secrets, kids []string) {
	t.Helper()
	within(t, 2*time.Minute, "halves without a name are swept", func() error {
		for _, kid := range kids {
			if !root.isGone(kid) {
				return fmt.Errorf("%s is still there", kid)
			}
		}
		return nil
	})
}

// oneChain reads every version of the manifest: one lineage, generations
// without a gap, never two keys of a ring that sign or stand by.
func oneChain(t *testing.T, s *vaultSite) {
	t.Helper()
	newest, last := s.manifest("main", 0)
	writes := map[string]int{}
	for version := 1; version <= last; version++ {
		m, _ := s.manifest("main", version)
		if m.Lineage != newest.Lineage || m.Generation != version {
			t.Errorf("version %d is generation %d of lineage %s; the newest is of %s", version, m.Generation, m.Lineage, newest.Lineage)
		}
		if other := writes[m.WriteID]; other != 0 {
			t.Errorf("versions %d and %d have the same write_id", other, version)
		}
		writes[m.WriteID] = version
		active, standby := map[string]int{}, map[string]int{}
		for _, k := range m.Keys {
			switch {
			case k.Activated.IsZero():
				standby[k.Ring]++
			case k.Retired.IsZero():
				active[k.Ring]++
			}
			if active[k.Ring] > 1 || standby[k.Ring] > 1 {
				t.Errorf("version %d has %d active and %d standby keys in ring %s", version, active[k.Ring], standby[k.Ring], k.Ring)
			}
		}
	}
	t.Logf("%s: %d generations in one chain", s.mount, last)
}
