package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
)

// reloading is what reloads have come to. One goroutine has it, but for the alarms.
type reloading struct {
	// running is the configuration that was applied last.
	running *configs.Config
	// pipe: the configuration came through one, and there is no second reading.
	pipe bool
	// refused is why the file on disk does not hold; "" while it does.
	refused string
	since   time.Time
	// waiting is the alarm about what a restart would apply, if there is one.
	waiting []keyring.Alarm

	alarms atomic.Pointer[[]keyring.Alarm]
	// reopen is the alarm about an audit log that was not reopened.
	reopen atomic.Pointer[keyring.Alarm]
}

// reloads reads the configuration again at SIGHUP, and when the file or a
// certificate has changed. The audit log is reopened at SIGHUP: that is what
// logrotate asks for. No two reloads overlap, since they all run here.
func (d *daemon) reloads(ctx context.Context) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	d.startReloading()
	w := newWatch(watchConfig{Logger: d.log, Settle: settleTime, Patience: settlePatience, Interval: lookInterval})
	defer w.close()
	w.follow(d.watched())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			d.reopenAudit()
			if d.options.Reload != nil {
				d.reload(true)
			}
		case ev := <-w.events():
			if !w.notice(ev) {
				continue // a neighbour's, and there may be many
			}
		case <-w.calm.C:
			w.wake()
			continue
		case err := <-w.errors():
			w.lost(err)
		case <-w.settled.C:
			w.rested()
			d.look()
		case <-w.tick.C:
			if d.reloading.reopen.Load() != nil {
				d.reopenAudit()
			}
			d.look()
		}
		w.follow(d.watched())
	}
}

// startReloading notes what runs, and whether its file can be looked at again.
func (d *daemon) startReloading() {
	d.reloading.running = d.options.Config
	if info, err := os.Stat(d.options.Config.File); err == nil && !info.Mode().IsRegular() {
		d.reloading.pipe = true
	}
}

// watches reports whether changes are to be looked for.
func (d *daemon) watches() bool {
	return d.options.Reload != nil && d.reloading.running.Watch && !d.reloading.pipe
}

// watched are the files whose change is a reload; none where nobody wants that.
func (d *daemon) watched() []string {
	c := d.reloading.running
	if !d.watches() {
		return nil
	}
	files := []string{c.File}
	if d.public != nil && c.Listen.Public.TLS.CertFile != "" {
		files = append(files, c.Listen.Public.TLS.CertFile, c.Listen.Public.TLS.KeyFile)
	}
	return files
}

// reopenAudit lets the audit log go on in the file that stands at its path. Where
// it cannot, the records go on into the one before, which has been renamed and
// will be packed and removed: that is an alarm, until a later try succeeds.
func (d *daemon) reopenAudit() {
	if d.audit == nil {
		return
	}
	before := d.reloading.reopen.Load()
	err := d.audit.Reopen()
	if err == nil {
		if before != nil {
			d.log.Info("audit log is reopened after all")
		}
		d.reloading.reopen.Store(nil)
		return
	}
	alarm := keyring.Alarm{Code: "audit_not_reopened", Since: time.Now(), Message: "records go on into the file that was there before, tried again every " + lookInterval.String() + ": " + err.Error()}
	if before != nil {
		alarm.Since = before.Since
	}
	if before == nil || before.Message != alarm.Message {
		d.log.Error("audit log was not reopened", "error", err)
	}
	d.reloading.reopen.Store(&alarm)
}

// look reloads where the file or a certificate holds something new. What was
// refused is tried again at each look: its cause may lie outside of the file, in
// its mode, a group that is missing, the key of a certificate.
func (d *daemon) look() {
	if !d.watches() {
		return
	}
	if d.reloading.refused == "" && !d.changed() {
		d.log.Debug("configuration looked at, nothing has changed")
		return
	}
	d.reload(false)
}

// changed compares contents, so that a touch is no reload.
func (d *daemon) changed() bool {
	c := d.reloading.running
	if sum, err := configs.Sum(c.File); err != nil || sum != c.Sum {
		return true
	}
	old := d.certificate.Load()
	if d.public == nil || old == nil {
		return false
	}
	now, err := loadCertificate(c.Listen.Public.TLS)
	return err != nil || !slices.EqualFunc(old.Certificate, now.Certificate, slices.Equal)
}

// reload reads the configuration and applies it as a whole, or keeps the old
// one as a whole. A reload that nobody asked for tells each cause once.
func (d *daemon) reload(asked bool) {
	r := &d.reloading
	next, err := d.options.Reload()
	if err == nil {
		err = d.apply(next)
	} else {
		err = d.confinedAway(err, d.options.Config.File)
	}
	if err != nil {
		if r.refused == "" {
			r.since = time.Now()
		}
		if asked || r.refused != err.Error() {
			d.metrics.Reloaded(false)
			d.log.Error("configuration was not reloaded, the old one stays", "error", err)
		}
		r.refused = err.Error()
		r.raise(append(slices.Clone(r.waiting),
			keyring.Alarm{Code: "config_refused", Since: r.since, Message: "the configuration on disk was refused and the old one stays: " + first(err)}))
		return
	}
	r.refused, r.running = "", next
	d.metrics.Reloaded(true)
	d.log.Info("configuration reloaded", "config", next)
	r.waiting = d.waiting(next)
	r.raise(r.waiting)
}

// first is the first fault of several, and how many there are.
func first(err error) string {
	var faults configs.Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		return err.Error()
	}
	if more := len(faults) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more; keyturn config check tells all)", faults[0], more)
	}
	return faults[0].String()
}

// waiting tells which settings of a file only a restart applies.
func (d *daemon) waiting(next *configs.Config) []keyring.Alarm {
	settings := slices.DeleteFunc(d.options.Config.Changed(next), func(path string) bool {
		return path == "profiles" || strings.HasPrefix(path, "profiles[") || path == "log.level" || path == "watch" ||
			d.public != nil && strings.HasPrefix(path, "listen.public.tls.")
	})
	if len(settings) == 0 {
		return nil
	}
	d.log.Warn("the file also changes settings that only a restart applies", "settings", settings)
	const most = 10
	text := strings.Join(settings[:min(most, len(settings))], ", ")
	if more := len(settings) - most; more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	return []keyring.Alarm{{Code: "restart_needed", Since: time.Now(), Message: "the file changes settings that only a restart applies, and those of issuers, rings and targets only with a higher revision of the issuer: " + text}}
}

func (r *reloading) raise(alarms []keyring.Alarm) { r.alarms.Store(&alarms) }

// reloadAlarms tell that the file on disk is not what holds, or that records do
// not go where they should.
func (d *daemon) reloadAlarms() (out []keyring.Alarm) {
	if list := d.reloading.alarms.Load(); list != nil {
		out = append(out, *list...)
	}
	if a := d.reloading.reopen.Load(); a != nil {
		out = append(out, *a)
	}
	return out
}

// errTLS: an open listener goes on as it began. One that handed out no
// certificate any more would refuse every consumer.
var errTLS = errors.New("listen.public: it cannot begin or end to use TLS while it is open: restart keyturn for that, or put tls back")

// apply compiles everything first, which may fail and leaves all as it was;
// then it applies, which cannot.
func (d *daemon) apply(next *configs.Config) error {
	// A file with which the next start would fail is told now.
	if _, err := resolve(next); err != nil {
		return err
	}
	if err := configs.JoinFaults(ringFaults(d.options.Config, next)); err != nil {
		return err
	}
	certificate, err := loadCertificate(next.Listen.Public.TLS)
	if err != nil {
		return d.confinedAway(err, next.Listen.Public.TLS.CertFile, next.Listen.Public.TLS.KeyFile)
	}
	if d.public != nil && (certificate == nil) != (d.certificate.Load() == nil) {
		return errTLS
	}
	if d.signer != nil {
		if err := d.signer.SetProfiles(profiles(next)); err != nil {
			return fmt.Errorf("profiles: %w", err)
		}
	}
	if d.public != nil { // else nobody asks for one before the restart
		d.certificate.Store(certificate)
	}
	d.metrics.SetProfiles(profileNames(next))
	if d.options.Level != nil {
		d.options.Level.Set(next.Log.SlogLevel())
	}
	return nil
}

// ringFaults finds profiles that rest on a ring as only a restart makes it.
func ringFaults(running, next *configs.Config) []configs.Fault {
	var out []configs.Fault
	if !running.Has(configs.Signer) {
		return nil
	}
	for i, p := range next.Profiles {
		ring, ok := running.Ring(p.Ring)
		switch {
		case !ok:
			out = append(out, next.Fault(fmt.Sprintf("profiles[%d].ring", i), fmt.Errorf("ring %s is new in this file: restart keyturn, or leave the profile out until then", p.Ring)))
		case p.TTL.Max > ring.MaxTokenTTL:
			out = append(out, next.Fault(fmt.Sprintf("profiles[%d].ttl.max", i),
				fmt.Errorf("is %s, and max_token_ttl of ring %s is %s until keyturn is restarted: restart it, or lower this one until then", p.TTL.Max, p.Ring, ring.MaxTokenTTL)))
		}
	}
	return out
}

func profileNames(c *configs.Config) []string {
	var out []string
	for _, p := range c.Profiles {
		out = append(out, p.Name)
	}
	return out
}
