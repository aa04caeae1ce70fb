package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/custody/custodytest/vaulttest"
)

// patient is a site with a lease of two minutes, and no rotation of its own.
func patient(t *testing.T, server *vaulttest.Server, mount string) *vaultSite {
	t.Helper()
	s := newVaultSite(t, server, mount, "all")
	s.edit("outage_budget: 10s", "outage_budget: 2m").edit("@every 28s", "@every 1h")
	return s
}

// frozen waits until a daemon says that nobody plans on the stored manifest, in
// its health, its metrics and its log, while it signs on.
func (d *daemon) frozen(kid string) {
	d.t.Helper()
	d.reason(time.Minute, "degraded", "frozen", "keyturn accept")
	if line := d.metric("keyturn_manifest_frozen{"); !strings.HasSuffix(line, " 1") {
		d.t.Errorf("metric %q", line)
	}
	d.logged(5*time.Second, `"code":"frozen"`)
	tok := d.mustToken("web")
	if tok.Kid != kid {
		d.t.Errorf("%s signs while the manifest is frozen, want %s", tok.Kid, kid)
	}
	if err := verifyWith(d.jwksURL(), tok.Token, "demo"); err != nil {
		d.t.Error(err)
	}
}

// mended waits until all is well, and the daemon signs with a key.
func (d *daemon) mended(kid string) {
	d.t.Helper()
	within(d.t, time.Minute, "no alarm", func() error {
		_, h, err := d.health("/readyz")
		if err != nil {
			return err
		}
		for _, r := range h.Reasons {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if line := d.metric("keyturn_manifest_frozen{"); !strings.HasSuffix(line, " 0") {
		d.t.Errorf("metric %q", line)
	}
	tok := d.mustToken("web")
	if tok.Kid != kid {
		d.t.Errorf("%s signs, want %s", tok.Kid, kid)
	}
	if err := verifyWith(d.jwksURL(), tok.Token, "demo"); err != nil {
		d.t.Error(err)
	}
}

// raw is the manifest as it is stored, a frozen one included.
func (s *vaultSite) raw(version int) (doc string, at int) {
	s.t.Helper()
	status, body := s.get("GET", fmt.Sprintf("%s/data/issuers/main/manifest?version=%d", s.mount, version))
	if status != http.StatusOK {
		s.t.Fatalf("manifest, version %d: status %d", version, status)
	}
	var reply struct {
		Data struct {
			Data     struct{ Manifest string }
			Metadata struct{ Version int }
		}
	}
	must(s.t, json.Unmarshal(body, &reply))
	return reply.Data.Data.Manifest, reply.Data.Metadata.Version
}

// put writes a manifest as root, past whatever replicas write meanwhile.
func (s *vaultSite) put(edit func(doc string) string) {
	s.t.Helper()
	within(s.t, 30*time.Second, "a write as root", func() error {
		doc, version := s.raw(0)
		_, err := s.vault.Client().Logical().Write(s.mount+"/data/issuers/main/manifest",
			map[string]any{"options": map[string]any{"cas": version}, "data": map[string]any{"manifest": edit(doc)}})
		return err
	})
}

// TestAcceptMends: whatever becomes of the manifest, a replica that has seen it
// freezes what is there, signs on, and founds nothing; keyturn accept puts back
// what it has seen.
func TestAcceptMends(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Unique("accept")
	server.EnableKV(t, mount, 2, map[string]any{"cas_required": true, "max_versions": 1000})
	s := patient(t, server, mount)
	d := s.start("web")
	d.young("web")
	d.refuses("/v1/issuers/main/accept", api.AcceptRequest{}, api.NotFrozen)
	d.refuses("/v1/issuers/nobody/accept", api.AcceptRequest{}, api.NotFound)
	for _, fault := range []struct {
		name string
		do   func()
	}{
		{"deleted for good", func() { s.get("DELETE", mount+"/metadata/issuers/main/manifest") }},
		{"deleted", func() { s.get("DELETE", mount+"/data/issuers/main/manifest") }},
		{"corrupt", func() { s.put(func(string) string { return `{"schema":1,"lineage":` }) }},
		{"an older one", func() {
			_, version := s.raw(0)
			old, _ := s.raw(version - 2)
			s.put(func(string) string { return old })
		}},
	} {
		s.freezesAndMends(d, fault.name, fault.do)
	}
	// Two lineages: whoever accepts destroys the halves of the other.
	m, _ := s.manifest("main", 0)
	s.freezesAndMends(d, "of another lineage", func() {
		s.put(func(doc string) string { return strings.ReplaceAll(doc, m.Lineage, "AAAAAAAAAAAAAAAAAAAAAAAAAA") })
	}, "--force")
	asked := ordersIn(t, s.site)
	for _, want := range []string{"accept_asked allow force=<nil> corrupt", "accept allow force=<nil> corrupt"} {
		if !slices.Contains(asked, want) {
			t.Errorf("no %q in the audit log: %q", want, asked)
		}
	}
	if line := d.metric("keyturn_manifest_accepts_total"); !strings.HasSuffix(line, " 5") {
		t.Errorf("metric %q", line)
	}
}

// freezesAndMends does something to the manifest, and mends it; with force,
// where nothing less will do.
func (s *vaultSite) freezesAndMends(d *daemon, name string, do func(), force ...string) {
	s.t.Helper()
	before, kid := d.issuer(), d.mustToken("web").Kid
	start := time.Now()
	do()
	d.frozen(kid)
	s.t.Logf("%s: frozen, and told, within %s", name, time.Since(start).Round(10*time.Millisecond))
	frozen, _ := s.raw(0)
	if !strings.Contains(frozen, `"frozen"`) {
		s.t.Errorf("%s: what is stored is not frozen", name)
	}
	if force != nil {
		p := d.refuses("/v1/issuers/main/accept", api.AcceptRequest{}, api.MarkTooLow)
		wants(s.t, p.Detail, "a wrong state_dir or a wrong store")
	}
	accept := append([]string{"accept", "main"}, force...)
	wants(s.t, d.ok(append(accept, "--dry-run")...), "would be in force", "no keys would be changed")
	if now, _ := s.raw(0); now != frozen {
		s.t.Errorf("%s: a dry run wrote", name)
	}
	d.ok(append(accept, "--yes", "--reason", name)...)
	d.mended(kid)
	after := d.issuer()
	if after.Lineage != before.Lineage || after.Generation <= before.Generation {
		s.t.Errorf("%s: generation %d of %s after %d of %s", name, after.Generation, after.Lineage, before.Generation, before.Lineage)
	}
	if m, _ := s.manifest("main", 0); m.Lineage != before.Lineage || !slices.Equal(m.activated("web"), []string{kid}) {
		s.t.Errorf("%s: stored is %+v", name, m)
	}
}

// TestAcceptAfterRestore: Vault goes back to a snapshot from before a
// revocation. Nobody acts on it; the replica that has seen most puts its manifest
// back, one that has seen less must not, and the revoked key stays revoked.
func TestAcceptAfterRestore(t *testing.T) {
	t.Parallel()
	server := vaulttest.Start(t)
	mount := server.Mount(t)
	sites := []*vaultSite{patient(t, server, mount), patient(t, server, mount)}
	sites[1].edit("url: http://"+sites[1].public, "url: http://"+sites[0].public)
	d, other := sites[0].start("web"), sites[1].start("web")
	root := newSecrets(sites[0], "main")
	bad, next := d.mustToken("web"), d.young("web")
	other.stop() // it sees nothing of what follows
	younger := goesBack(t, server, d, root, bad.Kid, next.Kid)
	d.frozen(next.Kid)
	other = sites[1].run()
	other.reason(time.Minute, "degraded", "frozen", "")
	p := other.refuses("/v1/issuers/main/accept", api.AcceptRequest{}, api.MarkTooLow)
	generation := d.issuer().Generation
	wants(t, p.Detail, "run keyturn accept there", fmt.Sprint("generation ", generation))
	if _, errs, code := cli(t, nil, other.sockets("accept", "main", "--yes")...); code != 1 || !strings.Contains(errs, "mark_too_low") {
		t.Errorf("keyturn accept on the replica that has seen less: exit code %d: %s", code, errs)
	}

	out := d.ok("accept", "main", "--dry-run")
	wants(t, out, bad.Kid+" would be destroyed", younger+" would be dropped")
	d.ok("accept", "main", "--yes", "--reason", "restored")
	within(t, time.Minute, "the revoked key's half is destroyed again", func() error {
		if !root.isGone(bad.Kid) {
			return errors.New("it is there")
		}
		return nil
	})
	for _, r := range []*daemon{d, other} {
		r.mended(next.Kid)
		if len(copyOf(t, r.jwksURL()).Key(bad.Kid)) > 0 {
			t.Error("the revoked key is in a set again")
		}
		if k, found := r.key("web", "revoked"); !found || k.Kid != bad.Kid {
			t.Errorf("revoked is %+v", k)
		}
	}
	if err := verifyWith(other.jwksURL(), bad.Token, "demo"); err == nil {
		t.Error("a token of the revoked key verifies again")
	}
	if now := d.issuer().Generation; now <= generation {
		t.Errorf("generation %d after %d", now, generation)
	}
}

// goesBack restores Vault to what it was before a key is revoked, and returns
// the kid of a key that was made since.
func goesBack(t *testing.T, server *vaulttest.Server, d *daemon, root *secrets, bad, next string) string {
	t.Helper()
	snapshot, err := server.Save()
	must(t, err)
	var done api.RevokeResponse
	must(t, d.order("/v1/keys/"+bad+"/revoke", api.RevokeRequest{Reason: "leaked", SignNow: true}, &done))
	if tok := d.mustToken("web"); tok.Kid != next {
		t.Fatalf("%s signs after %+v", tok.Kid, done)
	}
	within(t, time.Minute, "the half is destroyed, and there is a standby", func() error {
		if k, found := d.key("web", "standby"); !found || k.SafeAt.IsZero() || !root.isGone(bad) {
			return errors.New("not yet")
		}
		return nil
	})
	younger, _ := d.key("web", "standby")
	must(t, server.Restore(snapshot))
	if root.isGone(bad) || !root.isGone(younger.Kid) {
		t.Fatal("the restore brought back nothing: the test's snapshot is too young")
	}
	return younger.Kid
}

// TestAcceptWithoutAMark: where manifest and state_dir are both gone, what was
// published and the private halves tell that there was something: nothing is
// founded, and nobody has anything to put back.
func TestAcceptWithoutAMark(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	s := patient(t, server, server.Mount(t))
	d := s.start("web")
	d.young("web")
	halves := newSecrets(s, "main").kids()
	d.stop()
	s.get("DELETE", s.mount+"/metadata/issuers/main/manifest")
	must(t, os.RemoveAll(s.path("state")))
	for _, look := range []struct{ gone, why string }{{"nothing", "holds a set of generation"}, {"jwks.json*", "private halves of the issuer exist"}} {
		for _, f := range must1(filepath.Glob(s.path(look.gone)))(t) {
			must(t, os.Remove(f))
		}
		d = s.run()
		d.reason(time.Minute, "unavailable", "frozen", look.why)
		d.cannotSign(t)
		p := d.refuses("/v1/issuers/main/accept", api.AcceptRequest{}, api.MarkTooLow)
		wants(t, p.Detail, "this replica has no mark")
		if now := newSecrets(s, "main").kids(); !slices.Equal(now, halves) {
			t.Errorf("halves %v, before %v", now, halves)
		}
		d.stop()
		s.get("DELETE", s.mount+"/metadata/issuers/main/manifest") // the frozen one
	}
}
