package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/harden"
	"github.com/keyturn/keyturn/keyring"
)

// patience is how long the end of the daemon waits for a part that reads files:
// of these one may hang (a mount whose server is gone). It is less than drainTime.
const patience = 3 * time.Second

// patient is a part that is not waited for beyond that. What it does then ends
// with the process.
func (d *daemon) patient(name string, run func(context.Context) error) part {
	return part{name, func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- run(ctx) }()
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			d.log.Warn("a file is read that does not answer, and is not waited for", "part", name)
			return nil
		}
	}}
}

// keepAudit reopens the audit log at SIGHUP, which is what logrotate asks for,
// and tries again what failed. It is a part of its own: a configuration that
// cannot be read at once must not keep records in a file that is about to be packed.
func (d *daemon) keepAudit(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			d.reopenAudit(ctx)
		case <-tick.C:
			if len(d.ledger.Alarms()) > 0 {
				d.reopenAudit(ctx)
			}
		}
	}
}

// reopenAudit lets the audit log go on in the file that stands at its path. Where
// it cannot, the records go on into the one before, which has been renamed and
// will be packed and removed: that is an alarm, until a later try succeeds. A log
// that could not be opened at the start is opened.
func (d *daemon) reopenAudit(ctx context.Context) {
	l := d.ledger
	if l == nil {
		return
	}
	log := l.Log()
	if log == nil {
		if err := l.open(); err != nil {
			l.miss(0, d.auditAway(err))
			return
		}
		d.judgeAuditFolder()
		return
	}
	err := log.Reopen()
	l.reopened(err)
	if err != nil {
		return
	}
	// What was cut or removed is behind us: nobody has to wait for the next anchor to see that.
	d.anchors.judge(ctx)
	if l.gaping.Load() {
		l.fill(ctx)
	}
}

// reopened keeps what became of it, and logs it once for one cause.
func (l *ledger) reopened(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.reopen
	if err == nil {
		if before != nil {
			l.logger.Info("audit log is reopened after all")
		}
		l.reopen = nil
		return
	}
	alarm := keyring.Alarm{Code: codeAuditNotReopened, Since: time.Now(), Message: "records go on into the file that was there before, tried again every " + lookInterval.String() + ": " + err.Error()}
	if before != nil {
		alarm.Since = before.Since
	}
	if before == nil || before.Message != alarm.Message {
		l.logger.Error("audit log was not reopened", "error", err)
	}
	l.reopen = &alarm
}

// auditAway says, behind an error that comes of it, that the folder of the log
// was made after the process had confined itself.
func (d *daemon) auditAway(err error) error {
	dir := filepath.Dir(d.ledger.path)
	if errors.Is(err, fs.ErrPermission) && d.confined.Lacks(dir, harden.Write) {
		return fmt.Errorf("%w: %s", err, madeAnew(dir))
	}
	return err
}
