package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

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
	d.ledger = &ledger{path: path, required: true, logger: d.log}
	d.ledger.log.Store(log)
	d.reopenAudit(t.Context())
	if a := d.ledger.Alarms(); len(a) != 0 {
		t.Errorf("a reopening that succeeds: %+v", a)
	}
	must(t, errors.Join(os.Rename(path, path+".1"), os.Symlink(path+".1", path)))
	d.reopenAudit(t.Context())
	first := d.ledger.Alarms()
	d.reopenAudit(t.Context())
	again := d.ledger.Alarms()
	if len(first) != 1 || first[0].Code != "audit_not_reopened" || first[0].Since.IsZero() || len(again) != 1 || again[0].Since != first[0].Since {
		t.Errorf("with a link at the path: %+v, then %+v", first, again)
	}
	must(t, os.Remove(path))
	d.reopenAudit(t.Context())
	if a := d.ledger.Alarms(); len(a) != 0 {
		t.Errorf("after all: %+v", a)
	}
}

// TestReopenEndsHarm: what was done to the file that was in use is over with the new one,
// and nobody waits for the next anchor to hear that.
func TestReopenEndsHarm(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	d := reloadable(t, configs.PublicListener{})
	d.anchors = anchored(t, dir, newHeads(t))
	d.ledger = &ledger{path: path, required: true, logger: d.log}
	d.ledger.log.Store(d.anchors.log())
	d.anchors.write(t, 3)
	must(t, os.Truncate(path, 0))
	d.anchors.judge(t.Context())
	if got := alarmCodes(d.anchors, time.Now()); got != ":audit_harmed" {
		t.Errorf("after a cut: %q", got)
	}
	d.reopenAudit(t.Context())
	if got := alarmCodes(d.anchors, time.Now()); got != ":audit_harmed" {
		t.Errorf("the same file is in use: %q", got)
	}
	must(t, os.Rename(path, path+".1"))
	d.reopenAudit(t.Context())
	if got := alarmCodes(d.anchors, time.Now()); got != "" {
		t.Errorf("with a new file: %q", got)
	}
}

// TestPatientParts: the end of the daemon waits for a part, and not for ever.
func TestPatientParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{log: slog.New(slog.DiscardHandler)}
		for name, tc := range map[string]struct{ takes, waits time.Duration }{
			"at once": {0, 0}, "soon": {time.Second, time.Second}, "never": {time.Hour, patience},
		} {
			ctx, cancel := context.WithCancel(t.Context())
			part := d.patient(name, func(context.Context) error { <-ctx.Done(); time.Sleep(tc.takes); return nil })
			began := time.Now()
			cancel()
			must(t, part.run(ctx))
			if took := time.Since(began); took != tc.waits {
				t.Errorf("%s: waited %s, want %s", name, took, tc.waits)
			}
		}
		time.Sleep(2 * time.Hour) // the last of them ends as well
	})
}
