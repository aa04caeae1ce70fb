package signer

import (
	"testing"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer/profile"
)

func TestSetProfilesKeepsTheOld(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	if err := w.s.SetProfiles([]profile.Config{anybody("new", "ES256"), {Name: "bad"}}); err == nil {
		t.Fatal("a bad profile was taken")
	}
	w.mustSign("p-ES256")
	if err := w.s.SetProfiles([]profile.Config{anybody("new", "ES256")}); err != nil {
		t.Fatal(err)
	}
	w.mustSign("new")
	_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
	w.wantCode(prob, "forbidden", "")
}

func TestNewRefuses(t *testing.T) {
	good := newWorld(t, keyring.ES256).cfg
	for name, change := range map[string]func(c *Config){
		"no keys":     func(c *Config) { c.Keys = nil },
		"no audit":    func(c *Config) { c.Audit = nil },
		"ring twice":  func(c *Config) { c.Rings = append(c.Rings, c.Rings[0]) },
		"no issuer":   func(c *Config) { c.Rings = []profile.Ring{{Name: "x"}} },
		"bad profile": func(c *Config) { c.Profiles = []profile.Config{{}} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}
