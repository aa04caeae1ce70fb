package daemon

import (
	"errors"
	"reflect"

	"github.com/keyturn/keyturn/configs"
)

// reload compiles everything first, which may fail and leaves all as it was;
// then it applies, which cannot. Profiles, the log level and certificates change;
// what else differs waits for a restart, and the log says so.
func (d *daemon) reload() {
	if d.audit != nil {
		if err := d.audit.Reopen(); err != nil {
			d.log.Error("audit log was not reopened", "error", err)
		}
	}
	if d.options.Reload == nil {
		return
	}
	next, err := d.options.Reload()
	if err == nil {
		err = d.apply(next)
	}
	d.metrics.Reloaded(err == nil)
	if err != nil {
		d.log.Error("configuration was not reloaded, the old one stays", "error", err)
		return
	}
	d.log.Info("configuration reloaded", "config", next)
}

// errTLS: an open listener goes on as it began. One that handed out no
// certificate any more would refuse every consumer.
var errTLS = errors.New("listen.public: it cannot begin or end to use TLS while it is open: restart keyturn for that, or put tls back")

func (d *daemon) apply(next *configs.Config) error {
	// A file with which the next start would fail is told now.
	if _, err := resolve(next); err != nil {
		return err
	}
	certificate, err := loadCertificate(next.Listen.Public.TLS)
	if err != nil {
		return err
	}
	if d.public != nil && (certificate == nil) != (d.certificate.Load() == nil) {
		return errTLS
	}
	if d.signer != nil {
		if err := d.signer.SetProfiles(profiles(next)); err != nil {
			return errors.Join(errors.New("profiles"), err)
		}
	}
	if d.public != nil { // else nobody asks for one before the restart
		d.certificate.Store(certificate)
	}
	d.metrics.SetProfiles(profileNames(next))
	if d.options.Level != nil {
		d.options.Level.Set(next.Log.SlogLevel())
	}
	if !reflect.DeepEqual(withoutReloadable(d.options.Config), withoutReloadable(next)) {
		d.log.Warn("the file also changes settings that only a restart applies")
	}
	return nil
}

// withoutReloadable is what of a configuration only a restart changes.
func withoutReloadable(c *configs.Config) configs.Config {
	rest := *c
	rest.Profiles, rest.Log, rest.Lines = nil, configs.Log{}, nil
	return rest
}

func profileNames(c *configs.Config) []string {
	var out []string
	for _, p := range c.Profiles {
		out = append(out, p.Name)
	}
	return out
}
