package daemon

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/publisher"
)

// Report is what Check found out.
type Report struct {
	Timelines []Timeline
}

// String is the report as text.
func (r Report) String() string {
	var b strings.Builder
	for i, t := range r.Timelines {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(t.String())
	}
	return b.String()
}

// Check builds every part of a configuration that can be built without
// touching anything: no file is written, no socket opened, no Vault asked, no
// key read. What this host has to have, folders, groups and keys, is looked at
// by the daemon when it starts. It returns the timeline that the solver derived.
func Check(cfg *configs.Config) (Report, error) {
	if _, err := resolve(cfg); err != nil {
		return Report{}, err
	}
	log := slog.New(slog.DiscardHandler)
	if cfg.Store == configs.StoreVault {
		here := *cfg
		if _, err := os.Stat(here.Vault.CACertFile); err != nil {
			here.Vault.CACertFile = "" // as with a certificate: the daemon's host has it
		}
		if _, err := newSession(&here, log, nil); err != nil {
			return Report{}, err
		}
	}
	if _, err := publisher.New(publisher.Config{Issuers: targets(cfg), Self: publisher.Self{Dial: noDial}, Logger: log}); err != nil {
		return Report{}, err
	}
	if err := checkCertificate(cfg.Listen.Public.TLS); err != nil {
		return Report{}, err
	}
	lines, err := timelines(cfg)
	return Report{lines}, err
}

// checkCertificate reads a certificate that is here: a file is checked on other
// hosts, too, which do not have it.
func checkCertificate(files configs.TLS) error {
	for _, name := range []string{files.CertFile, files.KeyFile} {
		if _, err := os.Stat(name); err != nil {
			return nil
		}
	}
	_, err := loadCertificate(files)
	return err
}

// noDial is what a build needs and a check never uses.
func noDial(context.Context) (net.Conn, error) { return nil, net.ErrClosed }
