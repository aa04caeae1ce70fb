package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/keyring"
)

// final wants rotations to go on by themselves after the last storm, then stops
// everybody who asks, and looks at what is left.
func (c *chaos) final() {
	c.t.Helper()
	if err := c.wholeWithin(wellWithin); err != nil {
		c.ledger.fail("no recovery", "%v", err)
	}
	before := c.signers()
	c.ledger.note("waiting for a rotation of every ring: %v", before)
	// A young standby may have its lead before it, and the schedule a period.
	limit := 2*chaosGap + 10*time.Second
	deadline := time.Now().Add(limit)
	for {
		missing := ""
		now := c.signers()
		for who, kid := range now {
			if kid == "" || kid == before[who] {
				missing += " " + who
			}
		}
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			c.ledger.fail("no rotation", "not within %s:%s", limit, missing)
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	c.seeOrphans()
	c.lastConsumers()
	c.halt()
}

// signers are the kids that sign now, by replica and ring; "" for nobody.
func (c *chaos) signers() map[string]string {
	out := map[string]string{}
	for _, r := range c.replicas {
		for _, ring := range r.now().rings() {
			who := fmt.Sprintf("replica %d %s", r.index, ring)
			tok, err := r.daemon(c.t).token(ask(ring))
			if err != nil {
				tok = api.SignResponse{}
			}
			out[who] = tok.Kid
		}
	}
	return out
}

// lastConsumers: npm jose and PyJWT verify what each replica has just signed,
// with the set of another one. They take their time to start, and the tokens
// live for two seconds, so they have a few tries.
func (c *chaos) lastConsumers() {
	for i, r := range c.replicas {
		url := "http://" + c.replicas[(i+1)%len(c.replicas)].public + "/.well-known/jwks.json"
		for _, who := range consumers() {
			var err error
			for tries, refusals := 0, 0; tries < 5 && refusals < 60; {
				var tokens []string
				err = nil
				for _, ring := range []string{"web", "api"} {
					tok, refused := r.daemon(c.t).token(ask(ring))
					err = errors.Join(err, refused)
					tokens = append(tokens, tok.Token)
				}
				if err != nil { // a lease that lapsed for a moment on a busy machine
					refusals++
					time.Sleep(time.Second)
					continue
				}
				tries++
				if _, err = who.verify(c.t, url, c.issuer, "demo", 0, tokens); err == nil {
					c.ledger.add("verified, "+who.name+" at the end", len(tokens))
					break
				}
			}
			if err != nil {
				c.ledger.fail(unverifiable, "%s, replica %d's tokens at %s: %v", who.name, i, url, err)
			}
		}
	}
}

// end stops the replicas, and looks through what they leave behind.
func (c *chaos) end() {
	c.t.Helper()
	chain := c.chain()
	c.facts(chain)
	c.published(chain)
	c.halves(chain[len(chain)-1])
	for _, r := range c.replicas {
		if err := r.stop(); err != nil {
			c.ledger.fail("process", "replica %d after SIGTERM: %v", r.index, err)
		}
		c.papers(r)
	}
}

// keep leaves what tells how a failure came about.
func (c *chaos) keep(dir string) {
	c.t.Helper()
	for _, r := range c.replicas {
		to := filepath.Join(dir, fmt.Sprint("replica-", r.index))
		must(c.t, os.MkdirAll(to, 0o755))
		for _, name := range []string{"log", "audit.jsonl", "keyturn.yaml", "www/jwks.json", "www/jwks.json.keyturn", "state/main.manifest.json"} {
			doc, err := os.ReadFile(r.path(name))
			if err == nil { // not all of it need be there
				err = os.WriteFile(filepath.Join(to, filepath.Base(name)), doc, 0o644)
			}
			if err != nil {
				c.t.Logf("not kept: %v", err)
			}
		}
	}
	for generation, doc := range c.manifests {
		must(c.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("manifest-%05d.json", generation+1)), []byte(doc), 0o644))
	}
	must(c.t, os.WriteFile(filepath.Join(dir, "diary"), []byte(strings.Join(c.ledger.diary, "\n")), 0o644))
	c.t.Logf("logs and manifests are in %s", dir)
}

// manifestVersion is a manifest as it was stored, as far as it is looked at.
type manifestVersion struct {
	Lineage    string        `json:"lineage"`
	Generation uint64        `json:"generation"`
	WriteID    string        `json:"write_id"`
	Lease      time.Time     `json:"lease"`
	Keys       []manifestKey `json:"keys"`
}

type manifestKey struct {
	JWK struct {
		Kid string `json:"kid"`
	} `json:"jwk"`
	Ring      string           `json:"ring"`
	Created   time.Time        `json:"created"`
	Activated time.Time        `json:"activated"`
	Retired   time.Time        `json:"retired"`
	SignUntil time.Time        `json:"sign_until"`
	Closed    time.Time        `json:"closed"`
	Destroyed time.Time        `json:"destroyed"`
	Tail      keyring.Duration `json:"tail"`
}

// chain reads every manifest that was ever stored (I2): one lineage, one
// generation after the other, each written once.
func (c *chaos) chain() []manifestVersion {
	c.t.Helper()
	var out []manifestVersion
	last := 1
	for version := 1; version <= last; version++ {
		status, body, err := c.askVault(context.Background(), http.MethodGet, c.cluster.Front().URL(), fmt.Sprintf("%s/data/issuers/main/manifest?version=%d", c.mount, version))
		if err != nil || status != http.StatusOK {
			c.t.Fatalf("manifest, version %d: %d %v", version, status, err)
		}
		if version == 1 {
			if last, err = c.newestVersion(); err != nil {
				c.t.Fatal(err)
			}
		}
		var reply struct {
			Data struct{ Data struct{ Manifest string } }
		}
		must(c.t, json.Unmarshal(body, &reply))
		var m manifestVersion
		must(c.t, json.Unmarshal([]byte(reply.Data.Data.Manifest), &m))
		if n := len(out); n > 0 && (m.Lineage != out[n-1].Lineage || m.Generation != out[n-1].Generation+1 || m.WriteID == out[n-1].WriteID) {
			c.ledger.fail("chain", "generation %d of lineage %s, write %s follows %d of %s, write %s",
				m.Generation, m.Lineage, m.WriteID, out[n-1].Generation, out[n-1].Lineage, out[n-1].WriteID)
		}
		out = append(out, m)
		c.manifests = append(c.manifests, reply.Data.Data.Manifest)
	}
	c.ledger.add("generations of the manifest", len(out))
	return out
}

func (c *chaos) newestVersion() (int, error) {
	_, body, err := c.askVault(context.Background(), http.MethodGet, c.cluster.Front().URL(), c.mount+"/metadata/issuers/main/manifest")
	if err != nil {
		return 0, err
	}
	var reply struct {
		Data struct {
			Version int `json:"current_version"`
		}
	}
	return reply.Data.Version, json.Unmarshal(body, &reply)
}

// papers looks through a replica's log and its audit log: no secret, no race, no
// panic; and every token that anybody got is in the audit log (I10).
func (c *chaos) papers(r *replica) {
	c.t.Helper()
	text, err := os.ReadFile(r.path("log"))
	must(c.t, err)
	for _, bad := range []*regexp.Regexp{secretText, regexp.MustCompile(`panic:|DATA RACE|fatal error:`)} {
		if at := bad.FindIndex(text); at != nil {
			c.ledger.fail("log", "replica %d printed %q", r.index, text[max(0, at[0]-200):min(len(text), at[1]+3000)])
		}
	}
	audit, err := os.ReadFile(r.path("audit.jsonl"))
	must(c.t, err)
	if out, errs, code := cli(c.t, nil, "audit", "verify", r.path("audit.jsonl")); code != 0 { // the chain goes on over every crash
		c.ledger.fail("audit", "replica %d: exit code %d: %s%s", r.index, code, out, errs)
	}
	known := map[string]bool{}
	for line := range bytes.Lines(audit) {
		var rec struct{ JTI, Decision string }
		if json.Unmarshal(line, &rec) == nil && rec.Decision == "allow" { // kill -9 may tear a line
			known[rec.JTI] = true
		}
	}
	for _, tok := range c.tokens {
		if jti, _ := segment(tok.raw, 1)["jti"].(string); tok.replica == r.index && !known[jti] {
			c.ledger.fail("audit", "%s is not in the audit log, jti %s", tok, jti)
		}
	}
}

// halfStatus is what Vault says of a private half: of its data and its metadata.
func (c *chaos) halfStatus(kid string) (data, metadata int, err error) {
	at := c.cluster.Front().URL()
	if data, _, err = c.askVault(context.Background(), http.MethodGet, at, c.mount+"/data/issuers/main/keys/"+kid); err != nil {
		return 0, 0, err
	}
	metadata, _, err = c.askVault(context.Background(), http.MethodGet, at, c.mount+"/metadata/issuers/main/keys/"+kid)
	return data, metadata, err
}

// halves: those of keys that live are in Vault, those of closed ones are not
// (I7), and what has no name is swept in time.
func (c *chaos) halves(newest manifestVersion) {
	c.t.Helper()
	for _, k := range newest.Keys {
		data, metadata, err := c.halfStatus(k.JWK.Kid)
		must(c.t, err)
		switch {
		case k.Retired.IsZero() && data != http.StatusOK:
			c.ledger.fail("half", "%s is alive, and its half reads %d", k.JWK.Kid, data)
		case !k.Destroyed.IsZero() && (data != http.StatusNotFound || metadata != http.StatusNotFound):
			c.ledger.fail("half", "%s was destroyed, and its half reads %d, its metadata %d", k.JWK.Kid, data, metadata)
		case !k.Closed.IsZero() && k.Destroyed.IsZero() && time.Since(k.Closed) > 20*time.Second:
			c.ledger.fail("half", "%s was closed at %s, and its half is not destroyed yet", k.JWK.Kid, k.Closed)
		case !k.Destroyed.IsZero():
			c.ledger.count("halves that are destroyed")
		}
	}
	c.seeOrphans()
	c.ledger.add("halves without a name at the end, not due yet", len(c.orphans))
}

// sweptWithin is how long a half without a name may stay while a replica runs
// on undisturbed: a minute's grace, a look every quarter of it, and slack.
const sweptWithin = 100 * time.Second

// seeOrphans looks for halves that the newest manifest does not name.
func (c *chaos) seeOrphans() {
	c.t.Helper()
	at := c.cluster.Front().URL()
	status, body, err := c.askVault(context.Background(), "LIST", at, c.mount+"/metadata/issuers/main/keys")
	if err != nil || status != http.StatusOK {
		c.ledger.fail("harness", "list halves: %d %v", status, err)
		return
	}
	var list struct{ Data struct{ Keys []string } }
	must(c.t, json.Unmarshal(body, &list))
	_, manifest, err := c.askVault(context.Background(), http.MethodGet, at, c.mount+"/data/issuers/main/manifest")
	must(c.t, err)
	for _, kid := range list.Data.Keys {
		if strings.Contains(string(manifest), kid) {
			delete(c.orphans, kid)
			continue
		}
		if _, known := c.orphans[kid]; !known {
			c.orphans[kid] = time.Now()
			c.ledger.count("halves that were left without a name")
		}
	}
	sweeper := slices.ContainsFunc(c.replicas, func(r *replica) bool { return r.runs() > sweptWithin })
	for kid, since := range c.orphans {
		if !slices.Contains(list.Data.Keys, kid) {
			delete(c.orphans, kid)
			c.ledger.count("halves without a name that were swept")
		} else if age := time.Since(since); sweeper && age > sweptWithin {
			c.ledger.fail("orphan", "%s has had no name for %s", kid, age.Round(time.Second))
		}
	}
}
