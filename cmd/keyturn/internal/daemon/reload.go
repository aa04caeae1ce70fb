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
	// profiles are those in force: of running, and older ones in the place of those that wait.
	profiles []configs.Profile
	// pipe: the configuration came through one, and there is no second reading.
	pipe bool
	// refused is why the file on disk does not hold; "" while it does.
	refused string
	since   time.Time
	// waiting is the alarm about what a restart would apply, if there is one.
	waiting []keyring.Alarm

	alarms atomic.Pointer[[]keyring.Alarm]
}

// reloads reads the configuration again at SIGHUP, and when the file or a
// certificate has changed. No two reloads overlap, since they all run here.
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
			d.look()
		}
		w.follow(d.watched())
	}
}

// startReloading notes what runs, and whether its file can be looked at again.
func (d *daemon) startReloading() {
	d.reloading.running, d.reloading.profiles = d.options.Config, d.options.Config.Profiles
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
	next, err := d.again()
	var delayed []delay
	if err == nil {
		delayed, err = d.apply(next)
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
	r.waiting = d.waiting(next, delayed)
	r.raise(r.waiting)
}

// again reads the configuration. What was a file at the start is one: a FIFO in its
// place would be waited for.
func (d *daemon) again() (*configs.Config, error) {
	file := d.options.Config.File
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() && !d.reloading.pipe {
		return nil, fmt.Errorf("%s is no regular file any more: put a file there", file)
	}
	return d.options.Reload()
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
func (d *daemon) waiting(next *configs.Config, delayed []delay) []keyring.Alarm {
	settings := slices.DeleteFunc(d.options.Config.Changed(next), func(path string) bool {
		return path == "profiles" || strings.HasPrefix(path, "profiles[") || path == "log.level" || path == "watch" ||
			d.public != nil && strings.HasPrefix(path, "listen.public.tls.")
	})
	for _, p := range delayed {
		settings = append(settings, p.path)
	}
	if len(settings) == 0 {
		return nil
	}
	slices.Sort(settings)
	d.log.Warn("the file also changes settings that only a restart applies", "settings", settings)
	return []keyring.Alarm{{Code: "restart_needed", Since: time.Now(), Message: "the file changes settings that only a restart applies, and those of issuers, rings and targets only with a higher revision of the issuer: " + some(settings) + untilThen(delayed)}}
}

// some are the first of a list, and how many there are.
func some(list []string) string {
	const most = 10
	text := strings.Join(list[:min(most, len(list))], ", ")
	if more := len(list) - most; more > 0 {
		text = fmt.Sprintf("%s and %d more", text, more)
	}
	return text
}

// untilThen tells what holds in the place of profiles that wait.
func untilThen(list []delay) (text string) {
	var stay, missing []string
	for _, p := range list {
		if p.stays {
			stay = append(stay, p.name)
			continue
		}
		missing = append(missing, p.name)
	}
	if len(stay) > 0 {
		text += "; until then of these profiles holds what the file said before: " + some(stay)
	}
	if len(missing) > 0 {
		text += "; until then there are no profiles " + some(missing)
	}
	return text
}

func (r *reloading) raise(alarms []keyring.Alarm) { r.alarms.Store(&alarms) }

// reloadAlarms tell that the file on disk is not what holds.
func (d *daemon) reloadAlarms() []keyring.Alarm {
	if list := d.reloading.alarms.Load(); list != nil {
		return *list
	}
	return nil
}

// errTLS: an open listener goes on as it began. One that handed out no
// certificate any more would refuse every consumer.
var errTLS = errors.New("listen.public: it cannot begin or end to use TLS while it is open: restart keyturn for that, or put tls back")

// apply compiles everything first, which may fail and leaves all as it was;
// then it applies, which cannot. It returns the profiles that wait for a restart.
func (d *daemon) apply(next *configs.Config) ([]delay, error) {
	// A file with which the next start would fail is told now.
	if _, err := resolve(next); err != nil {
		return nil, err
	}
	held, delayed := d.fit(next)
	certificate, err := loadCertificate(next.Listen.Public.TLS)
	if err != nil {
		return nil, d.confinedAway(err, next.Listen.Public.TLS.CertFile, next.Listen.Public.TLS.KeyFile)
	}
	if d.public != nil && (certificate == nil) != (d.certificate.Load() == nil) {
		return nil, errTLS
	}
	if d.signer != nil {
		if err := d.signer.SetProfiles(profiles(held)); err != nil {
			return nil, fmt.Errorf("profiles: %w", err)
		}
	}
	d.reloading.profiles = held.Profiles
	if d.public != nil { // else nobody asks for one before the restart
		d.certificate.Store(certificate)
	}
	d.metrics.SetProfiles(profileNames(held))
	if d.options.Level != nil {
		d.options.Level.Set(next.Log.SlogLevel())
	}
	return delayed, nil
}

// delay is a profile that rests on a ring as only a restart makes it.
type delay struct {
	name string
	path string // of the field that says so
	// stays: there is a profile of that name, which holds until the restart.
	stays bool
}

// fit is a file with the profiles that can hold now. One that rests on a ring as
// only a restart makes it waits for that, as the ring does; one of its name that is in
// force stays as it is, as a whole. No profile is ever made of two files:
// none of them would have said what it signs.
func (d *daemon) fit(next *configs.Config) (*configs.Config, []delay) {
	running := d.options.Config
	if !running.Has(configs.Signer) {
		return next, nil
	}
	held, list := *next, []delay(nil)
	held.Profiles = nil
	for i, p := range next.Profiles {
		wait := delay{name: p.Name}
		switch ring, ok := running.Ring(p.Ring); {
		case !ok:
			wait.path = fmt.Sprintf("profiles[%d].ring", i)
		case p.TTL.Max > ring.MaxTokenTTL:
			wait.path = fmt.Sprintf("profiles[%d].ttl.max", i)
		default:
			held.Profiles = append(held.Profiles, p)
			continue
		}
		at := slices.IndexFunc(d.reloading.profiles, func(old configs.Profile) bool { return old.Name == p.Name })
		if wait.stays = at >= 0; wait.stays {
			held.Profiles = append(held.Profiles, d.reloading.profiles[at])
		}
		list = append(list, wait)
	}
	return &held, list
}

func profileNames(c *configs.Config) []string {
	var out []string
	for _, p := range c.Profiles {
		out = append(out, p.Name)
	}
	return out
}
