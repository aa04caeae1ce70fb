package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// reload saves the site's file and asks the daemon to read it again; it
// returns when the daemon has.
func (s *site) reload(d *daemon) {
	s.t.Helper()
	before := reloads(d)
	s.save()
	must(s.t, d.cmd.Process.Signal(syscall.SIGHUP))
	within(s.t, 10*time.Second, "a reload", func() error {
		if reloads(d) == before {
			return fmt.Errorf("metrics say %s", before)
		}
		return nil
	})
}

func reloads(d *daemon) string { return d.metric("keyturn_config_reloads_total{") }

// asks signs for a profile and returns the code of the refusal, "" for none.
func (d *daemon) asks(req api.SignRequest) api.Code {
	d.t.Helper()
	_, err := d.token(req)
	if p, ok := err.(*api.Problem); ok {
		return p.Code
	}
	must(d.t, err)
	return ""
}

// TestReload: SIGHUP applies profiles and the log level without a restart. A
// file that is broken changes nothing, and log and metric say so.
func TestReload(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("level: info", "level: error").edit("store: local", "store: local\nwatch: false")
	d := s.start("web")
	pid := d.cmd.Process.Pid
	if d.out.String() != "" {
		t.Errorf("at level error it says:\n%s", d.out)
	}
	mine := api.SignRequest{Profile: "mine", Subject: "alice"}
	if code := d.asks(mine); code != api.Forbidden {
		t.Errorf("a profile that is not there yet: %s", code)
	}

	// A profile joins, one changes, the log begins.
	s.edit("level: error", "level: info").edit(`subject: {pattern: "^[a-z]+$"}`, `subject: {pattern: "^bob$"}`).
		edit("audit: {", "  - {name: mine, ring: web, allow: [{socket: default}], subject: {pattern: \"^alice$\"}, audiences: [api], ttl: {default: 3s}}\naudit: {")
	s.reload(d)
	if got := d.metric("keyturn_config_last_reload_successful"); got != "keyturn_config_last_reload_successful 1" {
		t.Error(got)
	}
	if code := d.asks(mine); code != "" {
		t.Errorf("the new profile: %s", code)
	}
	if code := d.asks(ask("web")); code != api.InvalidRequest {
		t.Errorf("alice by the changed profile: %s", code)
	}
	d.logged(time.Second, `"msg":"configuration reloaded"`)

	good := s.text
	brokenReloads(t, s, d, mine)

	// Mended; and a profile leaves.
	s.text = good
	before, _, _ := strings.Cut(s.text, "  - {name: mine")
	s.text = before + "audit: {file: audit.jsonl}\n"
	s.reload(d)
	if got := d.metric("keyturn_config_last_reload_successful"); got != "keyturn_config_last_reload_successful 1" {
		t.Error(got)
	}
	if code := d.asks(mine); code != api.Forbidden {
		t.Errorf("the profile that has left: %s", code)
	}
	if strings.Contains(d.metric("keyturn_signatures_total"), `profile="mine"`) {
		t.Error("the profile that has left has a series")
	}
	if d.cmd.Process.Pid != pid || syscall.Kill(pid, 0) != nil {
		t.Error("the daemon was restarted")
	}
}

// brokenReloads: of a file that is broken nothing is taken, the old one stays.
func brokenReloads(t *testing.T, s *site, d *daemon, mine api.SignRequest) {
	t.Helper()
	good := s.text
	for name, edit := range map[string][2]string{
		"not read":     {"ring: web,", "rink: web,"},
		"not compiled": {`pattern: "^alice$"`, `pattern: "("`},
		"not allowed":  {"ttl: {default: 3s}", "ttl: {default: 3h}"},
		"not YAML":     {"profiles:", "profiles: ["},
		"not safe":     {"@every 10s", "@every 2s"}, // a restart would not take it
	} {
		s.text = good
		s.edit(edit[0], edit[1]).reload(d)
		if got := d.metric("keyturn_config_last_reload_successful"); got != "keyturn_config_last_reload_successful 0" {
			t.Errorf("%s: %s", name, got)
		}
		if code := d.asks(mine); code != "" {
			t.Errorf("%s: the profile that was there: %s", name, code)
		}
	}
	lines := strings.Count(d.out.String(), `"configuration was not reloaded, the old one stays"`)
	if lines != 5 {
		t.Errorf("%d lines in the log about 5 broken files", lines)
	}
	d.logged(time.Second, "keyturn.yaml:")
	d.logged(time.Second, "missing closing )")
}

// TestReloadLeavesTheRest: what only a restart applies is not applied by
// halves, and is told.
func TestReloadLeavesTheRest(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.start("web")
	s.edit("path: sign.sock", "path: other.sock").edit("@every 10s", "@every 1h").edit("revision: 1", "revision: 2").reload(d)
	d.logged(time.Second, "the file also changes settings that only a restart applies")
	d.mustToken("web")
	if _, err := os.Stat(s.path("other.sock")); err == nil {
		t.Error("the socket has moved")
	}
	all, err := d.issuers()
	must(t, err)
	if i := all.Issuers[0]; i.Revision != 1 || i.Rings[0].Rotate != "@every 10s" {
		t.Errorf("revision %d, rotate %q", i.Revision, i.Rings[0].Rotate)
	}
	kid := d.mustToken("web").Kid
	d.stop()
	moved := s.daemon()
	moved.sign = s.path("other.sock")
	d = start(t, moved, nil, "run", "--config", s.path("keyturn.yaml"))
	d.canSign(30*time.Second, "web")
	if again := d.mustToken("web").Kid; again != kid {
		t.Errorf("%s signs after the restart, %s did before", again, kid)
	}
	within(t, 5*time.Second, "the higher revision", func() error {
		if all, err = d.issuers(); err != nil || all.Issuers[0].Revision != 2 || all.Issuers[0].Rings[0].Rotate != "@every 1h" {
			return fmt.Errorf("%+v %v", all.Issuers, err)
		}
		return nil
	})
}
