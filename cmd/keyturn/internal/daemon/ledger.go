package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/admin"
	"github.com/keyturn/keyturn/audit"
	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/signer"
)

// Codes of the alarms about the audit log's file.
const (
	codeAuditFailed      = "audit_failed"
	codeAuditNotReopened = "audit_not_reopened"
)

// recorder is the audit log as the sockets take it.
type recorder interface {
	signer.Recorder
	admin.Recorder
}

// ledger is the audit log over the life of a daemon. One that is not required
// may be missing at first, and what is decided without it is counted: nobody
// else would know of it. A nil one is that of a daemon that has none.
type ledger struct {
	path     string
	required bool
	logger   *slog.Logger

	log atomic.Pointer[audit.Log] // nil until it could be opened
	// gaping says that there is a gap, for those who come by it without a lock.
	gaping atomic.Bool

	mu  sync.Mutex
	gap gap
	// reopen is the alarm about a log that was not reopened; nil where it was.
	reopen *keyring.Alarm
}

// gap is what goes without a record, where the file says that this may be.
type gap struct {
	since time.Time // zero: there is none
	lost  int       // decisions
	err   error
}

// errNoLog is what the sockets hear until there is a log.
var errNoLog = errors.New("there is no audit log yet")

// Log is the log, nil where there is none (yet).
func (l *ledger) Log() *audit.Log {
	if l == nil {
		return nil
	}
	return l.log.Load()
}

// recorder is the log itself where each decision waits for it.
func (l *ledger) recorder() recorder {
	switch {
	case l == nil:
		return nil
	case l.required:
		return l.Log()
	}
	return l
}

// open opens the log, and tells in it what was decided before.
func (l *ledger) open() error {
	log, err := audit.Open(l.path)
	if err != nil {
		l.miss(0, err)
		return err
	}
	l.log.Store(log)
	l.fill(context.Background())
	return nil
}

// Append implements admin.Recorder.
func (l *ledger) Append(ctx context.Context, r audit.Record) error {
	return l.AppendAll(ctx, []audit.Record{r})
}

// AppendAll implements signer.Recorder. After an error the decisions stand, so
// they are counted.
func (l *ledger) AppendAll(ctx context.Context, records []audit.Record) error {
	log := l.log.Load()
	if log == nil {
		l.miss(len(records), nil)
		return errNoLog
	}
	if err := log.AppendAll(ctx, records); err != nil {
		l.miss(len(records), err)
		return err
	}
	if l.gaping.Load() {
		l.fill(ctx)
	}
	return nil
}

// miss counts decisions that have no record; without an error the cause is the same.
func (l *ledger) miss(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gap.since.IsZero() {
		l.gap.since = time.Now()
	}
	l.gap.lost += n
	if err != nil {
		l.gap.err = err
	}
	l.gaping.Store(true)
}

// fill ends a gap: the log can be written again, and tells how many decisions it
// lacks. Where not even that can be written the gap goes on.
func (l *ledger) fill(ctx context.Context) {
	l.mu.Lock()
	was := l.gap
	l.gap = gap{}
	l.gaping.Store(false)
	l.mu.Unlock()
	if was.since.IsZero() {
		return
	}
	if was.lost > 0 {
		const nobody = 1<<32 - 1
		if err := l.log.Load().Append(ctx, audit.Record{
			Event: audit.EventLost, UID: nobody, GID: nobody, Count: was.lost, First: was.since,
			Reason: "these decisions could not be recorded, and audit.required is false",
		}); err != nil {
			l.restore(was, err)
			return
		}
	}
	l.logger.Info("audit log is written", "lost", was.lost, "since", was.since)
}

func (l *ledger) restore(old gap, err error) {
	l.miss(old.lost, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if old.since.Before(l.gap.since) {
		l.gap.since = old.since
	}
}

// close closes the log. What it could not be told is told here at least.
func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	log := l.Log()
	if log != nil && l.gaping.Load() {
		l.fill(context.Background())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gap.lost > 0 {
		l.logger.Warn("decisions have no record", "lost", l.gap.lost, "since", l.gap.since)
	}
	if log == nil {
		return nil
	}
	return log.Close()
}

// Alarms are about the file: whether it is written, and which.
func (l *ledger) Alarms() (out []keyring.Alarm) {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.gap; !g.since.IsZero() && !l.required {
		out = append(out, keyring.Alarm{Code: codeAuditFailed, Since: g.since, Message: fmt.Sprintf(
			"the audit log cannot be written, and as audit.required: false says, decisions go on without a record: %d of them since %s; tried again every %s, and at SIGHUP: %v",
			g.lost, g.since.UTC().Format(time.RFC3339), lookInterval, g.err)})
	}
	if l.reopen != nil {
		out = append(out, *l.reopen)
	}
	return out
}
