package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAuditBehind: a log that was cut is told and not anchored over; signing
// goes on, and a new name begins anew.
func TestAuditBehind(t *testing.T) {
	t.Parallel()
	s := anchoredSite(t)
	log := s.path("audit.jsonl")
	d := s.start("web")
	d.mustToken("web")
	d.stop()
	h, err := s.anchor()
	must(t, err)
	whole, err := os.ReadFile(log)
	must(t, err)
	if list := records(t, log); float64(h.Seq) != list[len(list)-1]["seq"] {
		t.Errorf("anchored at the end: %+v", h)
	}
	must(t, os.Truncate(log, int64(strings.LastIndex(strings.TrimSuffix(string(whole), "\n"), "\n")+1)))
	before, err := os.ReadFile(s.anchorFile())
	must(t, err)
	behind := func(d *daemon) {
		t.Helper()
		d.reason(20*time.Second, "degraded", "audit_behind", fmt.Sprintf("record %d of chain %s", h.Seq, h.Chain))
		if line := d.metric(`keyturn_alarms{code="audit_behind"}`); !strings.HasSuffix(line, " 1") {
			t.Errorf("metric %q", line)
		}
		d.mustToken("web") // it stops nobody from signing
		if code, health, err := d.health("/readyz/signer"); err != nil || code != http.StatusOK {
			t.Errorf("/readyz/signer: %d %+v %v", code, health, err)
		}
	}
	d = s.start("web")
	behind(d)
	d.mustToken("web") // beyond the number that is anchored
	behind(d)
	d.stop()
	// Gone as a whole, before anything is signed.
	must(t, os.Remove(log))
	must(t, os.Remove(log+".lock"))
	d = s.start("web")
	behind(d)
	d.stop()
	if after, err := os.ReadFile(s.anchorFile()); err != nil || string(after) != string(before) {
		t.Errorf("the anchors were overwritten: %v\n%s\n%s", err, before, after)
	}
	wants(t, s.verifies(t, 1, log), "replaced", "another log stands in its place")
	d = start(t, s.daemon(), []string{"KEYTURN_REPLICA=host-1b"}, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	within(t, 20*time.Second, "an anchor under the new name", func() error {
		_, err := os.Stat(s.path("custody/issuers/main/audit/host-1b.json"))
		return err
	})
	d.reason(20*time.Second, "ok", "", "")
}

// TestAuditHarmed: copytruncate and rm, while the log is written.
func TestAuditHarmed(t *testing.T) {
	t.Parallel()
	s := anchoredSite(t)
	d := s.start("web")
	d.mustToken("web")
	must(t, os.Truncate(s.path("audit.jsonl"), 0))
	d.mustToken("web")
	d.reason(20*time.Second, "degraded", "audit_harmed", "copytruncate")
	must(t, os.Remove(s.path("audit.jsonl")))
	d.reason(20*time.Second, "degraded", "audit_harmed", "was removed")
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.reason(20*time.Second, "ok", "", "")
	d.mustToken("web")
	d.stop()
	d = s.start("web") // what was taken away is beyond what the new file tells
	time.Sleep(2 * time.Second)
	d.reason(20*time.Second, "ok", "", "")
}

// headsIn reads the anchors of a replica in Vault.
func (s *vaultSite) headsIn(replica string) (list []head, raw string, err error) {
	status, body := s.get("GET", s.mount+"/data/issuers/main/audit/"+replica)
	if status != http.StatusOK {
		return nil, "", fmt.Errorf("status %d: %s", status, body)
	}
	var reply struct {
		Data struct{ Data struct{ Heads string } }
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return nil, "", err
	}
	var doc struct{ Heads []head }
	err = json.Unmarshal([]byte(reply.Data.Data.Heads), &doc)
	return doc.Heads, reply.Data.Data.Heads, err
}

// TestAuditAnchorsInVault: two replicas anchor by themselves; one of a name that
// is taken is told so and leaves the other's alone.
func TestAuditAnchorsInVault(t *testing.T) {
	t.Parallel()
	server := sharedVault(t)
	mount := server.Mount(t)
	var sites []*vaultSite
	for range 3 {
		s := newVaultSite(t, server, mount, "all")
		s.edit("{file: audit.jsonl}", "{file: audit.jsonl, anchor_interval: 1s}")
		if len(sites) > 0 {
			s.edit("url: http://"+s.public, "url: http://"+sites[0].public)
		}
		sites = append(sites, s)
	}
	first := filepath.Base(sites[0].dir)
	var daemons []*daemon
	for i, s := range sites {
		var env []string
		if i == 2 { // a configuration that was copied, name and all
			env = []string{"KEYTURN_REPLICA=" + first}
		}
		daemons = append(daemons, start(t, s.daemon(), env, "run", "--config", s.save()))
		daemons[i].canSign(60*time.Second, "web")
		if i < 2 {
			within(t, 20*time.Second, "an anchor", func() error { _, _, err := s.headsIn(filepath.Base(s.dir)); return err })
		}
	}
	daemons[2].reason(20*time.Second, "degraded", "audit_behind", "the log is another chain")
	daemons[2].mustToken("web")
	daemons[0].mustToken("web")
	for i, s := range sites[:2] {
		daemons[i].stop()
		list := records(t, s.path("audit.jsonl"))
		last := list[len(list)-1]
		heads, raw, err := s.headsIn(filepath.Base(s.dir))
		if must(t, err); heads[len(heads)-1].Hash != last["hash"] {
			t.Errorf("replica %d: %+v is anchored, the log ends in %v", i, heads[len(heads)-1], last)
		}
		if found := secretText.FindString(raw); found != "" {
			t.Errorf("the anchors hold %q", found)
		}
		wants(t, s.verifies(t, 0), "whole:", heads[0].Chain)
	}
	cut := sites[1].path("cut.jsonl")
	doc, err := os.ReadFile(sites[1].path("audit.jsonl"))
	must(t, err)
	must(t, os.WriteFile(cut, doc[:strings.LastIndex(strings.TrimSuffix(string(doc), "\n"), "\n")+1], 0o600))
	wants(t, sites[1].verifies(t, 1, cut), "truncated", "1 record or more is missing at the end")
	_, errs, code := cli(t, []string{"KEYTURN_VAULT_ADDRESS=http://127.0.0.1:1"}, "audit", "verify", "--config", sites[1].path("keyturn.yaml"), cut)
	if code != 2 {
		t.Errorf("without Vault: exit code %d: %s", code, errs)
	}
}
