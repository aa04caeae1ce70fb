package daemon

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/audit/verify"
	"github.com/keyturn/keyturn/configs"
)

// optional is a daemon whose log need not be there.
func optional(t *testing.T, path string) *daemon {
	t.Helper()
	d := reloadable(t, configs.PublicListener{})
	d.ledger = &ledger{path: path, logger: d.log}
	t.Cleanup(func() { d.ledger.closed(t) })
	return d
}

func (l *ledger) closed(t *testing.T) {
	if log := l.Log(); log != nil {
		must(t, log.Close())
	}
}

// decide records n decisions.
func (l *ledger) decide(t *testing.T, n int) (err error) {
	t.Helper()
	for range n {
		err = errors.Join(err, l.recorder().AppendAll(t.Context(), []audit.Record{{Event: audit.EventSign, Decision: audit.Allow}}))
	}
	return err
}

// lostIn are the records of a log that tell of decisions without one, by their count.
func lostIn(t *testing.T, path string) (counts []int) {
	t.Helper()
	doc, err := os.ReadFile(path)
	must(t, err)
	for line := range strings.Lines(string(doc)) {
		var r audit.Record
		must(t, json.Unmarshal([]byte(line), &r))
		if r.Event == audit.EventLost {
			if r.UID != 1<<32-1 || r.Decision != "" || r.First.IsZero() || !r.First.Before(r.Time) {
				t.Errorf("%s", line)
			}
			counts = append(counts, r.Count)
		}
	}
	report, err := verify.Files([]string{path}, verify.Known{})
	if must(t, err); !report.OK() {
		t.Errorf("%+v", report)
	}
	return counts
}

// TestLedgerIsOpenedLater: a log that is not required and cannot be opened is an
// alarm, which counts what is decided without it. It is opened as soon as it can be, and
// tells of that.
func TestLedgerIsOpenedLater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "audit.jsonl")
	d := optional(t, path)
	if err := d.ledger.open(); err == nil {
		t.Fatal("opened in no folder")
	}
	alarm := func(want string) {
		t.Helper()
		a := d.ledger.Alarms()
		if len(a) != 1 || a[0].Code != "audit_failed" || a[0].Fatal || a[0].Since.IsZero() || !strings.Contains(a[0].Message, want) || !strings.Contains(a[0].Message, "does not exist") {
			t.Errorf("%+v, want %q", a, want)
		}
	}
	alarm("go on without a record: 0 of them since 2")
	if err := d.ledger.decide(t, 3); !errors.Is(err, errNoLog) {
		t.Errorf("decisions without a log: %v", err)
	}
	d.reopenAudit(t.Context()) // in vain
	alarm("3 of them since 2")
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	d.reopenAudit(t.Context())
	if a := d.ledger.Alarms(); len(a) != 0 {
		t.Errorf("with a log: %+v", a)
	}
	must(t, d.ledger.decide(t, 2))
	if got := lostIn(t, path); len(got) != 1 || got[0] != 3 {
		t.Errorf("lost %v, want [3]", got)
	}
	must(t, os.Rename(path, path+".1"))
	d.reopenAudit(t.Context())
	if _, err := os.Stat(path); err != nil {
		t.Errorf("a log that was opened later is not reopened: %v", err)
	}
}

// TestLedgerLosesRecords: so it is where writing fails later on, until it succeeds.
func TestLedgerLosesRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	d := optional(t, path)
	must(t, d.ledger.open())
	must(t, d.ledger.decide(t, 1))
	if a := d.ledger.Alarms(); len(a) != 0 {
		t.Errorf("%+v", a)
	}
	must(t, d.ledger.Log().Close())
	if err := d.ledger.decide(t, 4); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("a closed log: %v", err)
	}
	if a := d.ledger.Alarms(); len(a) != 1 || a[0].Code != "audit_failed" || !strings.Contains(a[0].Message, "4 of them since") {
		t.Errorf("%+v", a)
	}
	log, err := audit.Open(path)
	must(t, err)
	d.ledger.log.Store(log)
	must(t, d.ledger.decide(t, 1))
	if a := d.ledger.Alarms(); len(a) != 0 {
		t.Errorf("%+v", a)
	}
	if got := lostIn(t, path); len(got) != 1 || got[0] != 4 {
		t.Errorf("lost %v, want [4]", got)
	}
}

// TestLedgerRequired: each decision waits for the log itself.
func TestLedgerRequired(t *testing.T) {
	l := &ledger{path: filepath.Join(t.TempDir(), "audit.jsonl"), required: true}
	must(t, l.open())
	defer l.closed(t)
	if l.recorder() != recorder(l.Log()) {
		t.Error("something stands between")
	}
	var none *ledger
	if none.recorder() != nil || none.Alarms() != nil {
		t.Error("a daemon without decisions has a log")
	}
}
