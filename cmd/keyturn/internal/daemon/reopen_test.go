package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/configs"
)

// TestReopenThatFails: where logrotate's SIGHUP cannot be followed an alarm
// stands until a later try succeeds, with the time of the first.
func TestReopenThatFails(t *testing.T) {
	d := reloadable(t, configs.PublicListener{})
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	log, err := audit.Open(path)
	must(t, err)
	defer func() { must(t, log.Close()) }()
	d.audit = log
	d.reopenAudit()
	if a := d.reloadAlarms(); len(a) != 0 {
		t.Errorf("a reopening that succeeds: %+v", a)
	}
	must(t, errors.Join(os.Rename(path, path+".1"), os.Symlink(path+".1", path)))
	d.reopenAudit()
	first := d.reloadAlarms()
	d.reopenAudit()
	again := d.reloadAlarms()
	if len(first) != 1 || first[0].Code != "audit_not_reopened" || first[0].Since.IsZero() || len(again) != 1 || again[0].Since != first[0].Since {
		t.Errorf("with a link at the path: %+v, then %+v", first, again)
	}
	must(t, os.Remove(path))
	d.reopenAudit()
	if a := d.reloadAlarms(); len(a) != 0 {
		t.Errorf("after all: %+v", a)
	}
}
