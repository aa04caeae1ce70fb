package e2e

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// TestRollingAlgorithm: one replica's file gives the ring another algorithm,
// with a higher revision. A second standby joins the first, which goes once the
// new one is proven; the active key is untouched until its rotation is due, and
// then all replicas sign with the new algorithm, whatever their files say.
func TestRollingAlgorithm(t *testing.T) {
	t.Parallel()
	const period = 40 * time.Second
	f := newFleet(t, func(s *vaultSite) { s.set("rotate", `"@every 40s"`) })
	active, _ := f.daemons[0].key("web", "active")
	due := nextRotation(t, f.daemons[0])
	was := f.daemons[0].standby(40*time.Second, "web")

	change := func(s *vaultSite) { s.set("algorithm", "EdDSA").set("revision", "2") }
	f.replace(0, change)
	f.everywhere(15*time.Second, "two standbys", func(is api.Issuer) error {
		keys := keysOf(is, "web")
		algorithms := map[string]string{}
		for _, k := range keys["standby"] {
			algorithms[k.Algorithm] = k.Kid
		}
		if len(keys["standby"]) != 2 || algorithms["ES256"] != was.Kid || algorithms["EdDSA"] == "" || len(keys["active"]) != 1 || keys["active"][0].Kid != active.Kid {
			return fmt.Errorf("%+v", keys)
		}
		return nil
	})
	for i := range 2 {
		f.drifts(i+1, "rings.web.algorithm: EdDSA → ES256")
	}
	f.replace(1, change) // in the middle of it; replica 2 keeps its file
	within(t, period, "the rotation", func() error {
		for i := range f.daemons {
			if kid := f.signer(fmt.Sprint("replica ", i)); kid == active.Kid || kid == was.Kid {
				return fmt.Errorf("replica %d signs with %s", i, kid)
			}
		}
		return nil
	})
	f.drifts(2, "rings.web.algorithm: EdDSA → ES256")
	for i, d := range f.daemons {
		if alg := segment(d.mustToken("web").Token, 0)["alg"]; alg != "EdDSA" {
			t.Errorf("replica %d signs with %v", i, alg)
		}
	}
	f.replace(2, change)
	f.driftsNowhere()
	f.end()
	newest, last := f.sites[0].manifest("main", 0)
	for version := 1; version <= last; version++ {
		f.standbysOf(version)
	}
	byKid := map[string]storedKey{}
	for _, k := range newest.Keys {
		byKid[k.JWK.Kid] = k
	}
	next := byKid[f.signer("replica 0")]
	if byKid[active.Kid].Retired.Before(due) || !byKid[active.Kid].Retired.Equal(next.Activated) {
		t.Errorf("the active key retired at %s, due was %s, its successor signs since %s", byKid[active.Kid].Retired, due, next.Activated)
	}
	if gone := byKid[was.Kid]; !gone.Activated.IsZero() || gone.Retired.Before(next.Created.Add(rollingLead)) || gone.Retired.After(next.Activated) {
		t.Errorf("the old standby %+v; the new one was made at %s, the lead is %s, and it signs since %s", gone, next.Created, rollingLead, next.Activated)
	}
}

// standbysOf wants one standby in a version of the manifest, or two of
// different algorithms, and one active key.
func (f *fleet) standbysOf(version int) {
	f.t.Helper()
	doc, _, err := f.sites[0].document("main", version)
	must(f.t, err)
	var keys []struct {
		JWK                struct{ Kid, Alg string }
		Activated, Retired time.Time
	}
	must(f.t, json.Unmarshal(doc["keys"], &keys))
	standbys, active := map[string]int{}, 0
	for _, k := range keys {
		switch {
		case !k.Retired.IsZero():
		case k.Activated.IsZero():
			standbys[k.JWK.Alg]++
		default:
			active++
		}
	}
	if standbys["ES256"] > 1 || standbys["EdDSA"] > 1 || active > 1 {
		f.t.Errorf("version %d: standbys %v, %d active", version, standbys, active)
	}
}
