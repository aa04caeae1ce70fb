package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/configs/strictyaml"
)

// looking is a daemon that reloads a real file, of which the tests choose what
// is made; its log is kept.
func looking(t *testing.T, public configs.PublicListener) (d *daemon, log *bytes.Buffer, next *configs.Config, refuse *error) {
	t.Helper()
	d, log, next, refuse = reloadable(t, public), new(bytes.Buffer), new(configs.Config), new(error)
	d.log = slog.New(slog.NewTextHandler(log, nil))
	file := filepath.Join(t.TempDir(), "keyturn.yaml")
	must(t, os.WriteFile(file, []byte("one"), 0o600))
	sum, err := configs.Sum(file)
	must(t, err)
	d.options.Config.File, d.options.Config.Sum, d.options.Config.Watch = file, sum, true
	*next = *d.options.Config
	d.options.Reload = func() (*configs.Config, error) {
		if *refuse != nil {
			return nil, *refuse
		}
		made := *next
		var err error
		made.Sum, err = configs.Sum(file)
		return &made, err
	}
	return d, log, next, refuse
}

func codes(d *daemon) (out []string) {
	for _, a := range d.reloadAlarms() {
		out = append(out, a.Code)
	}
	return out
}

// TestLook: only new content is a reload; a refusal is told once for each
// cause, tried again at each look, and taken back by a good file.
func TestLook(t *testing.T) {
	d, log, next, refuse := looking(t, configs.PublicListener{Addr: ":1", Insecure: true})
	said := func(reloads, refusals int, alarms ...string) {
		t.Helper()
		if r, e := strings.Count(log.String(), "configuration reloaded"), strings.Count(log.String(), "the old one stays"); r != reloads || e != refusals {
			t.Errorf("%d reloads and %d refusals, want %d and %d:\n%s", r, e, reloads, refusals, log)
		}
		if diff := cmp.Diff(alarms, codes(d)); diff != "" {
			t.Errorf("alarms (-want +got):\n%s", diff)
		}
	}
	d.look()
	said(0, 0)
	must(t, os.WriteFile(d.options.Config.File, []byte("two"), 0o600))
	d.look()
	d.look()
	said(1, 0)

	*refuse = errors.New("bad in one way")
	must(t, os.WriteFile(d.options.Config.File, []byte("three"), 0o600))
	d.look()
	d.look()
	said(1, 1, "config_refused")
	since := d.reloadAlarms()[0].Since
	*refuse = errors.New("bad in another way")
	d.look()
	said(1, 2, "config_refused")
	if a := d.reloadAlarms()[0]; !a.Since.Equal(since) || !strings.HasSuffix(a.Message, "bad in another way") {
		t.Errorf("alarm %+v, since %s", a, since)
	}
	d.reload(true) // who asks hears it again
	said(1, 3, "config_refused")
	*refuse = nil
	d.look() // with the same bytes: the cause lay elsewhere
	d.look()
	said(2, 3)
	must(t, os.Rename(d.options.Config.File, d.options.Config.File+".away"))
	*refuse = errors.New("it is gone")
	d.look()
	said(2, 4, "config_refused")
	*refuse = nil
	must(t, os.Rename(d.options.Config.File+".away", d.options.Config.File))
	d.look() // it is what holds, as if nothing had been
	said(3, 4)

	next.StateDir, next.Log.Level = "/elsewhere", "debug"
	must(t, os.WriteFile(d.options.Config.File, []byte("four"), 0o600))
	d.look()
	said(4, 4, "restart_needed")
	if a := d.reloadAlarms()[0]; !strings.HasSuffix(a.Message, ": state_dir") {
		t.Errorf("alarm %+v", a)
	}
	*refuse = errors.New("bad")
	must(t, os.Remove(d.options.Config.File))
	d.look()
	said(4, 5, "restart_needed", "config_refused")
	*refuse, next.StateDir, next.Watch = nil, "", false
	must(t, os.WriteFile(d.options.Config.File, []byte("five"), 0o600))
	d.look()
	said(5, 5)
	must(t, os.WriteFile(d.options.Config.File, []byte("six"), 0o600))
	d.look() // watch is false by now
	said(5, 5)
	if files := d.watched(); files != nil {
		t.Errorf("watches %q", files)
	}
}

// A configuration that came through a pipe (--config <(…)) is not looked at
// again: it would be found empty.
func TestNoLookAtAPipe(t *testing.T) {
	d, log, _, _ := looking(t, configs.PublicListener{Addr: ":1", Insecure: true})
	must(t, errors.Join(os.Remove(d.options.Config.File), syscall.Mkfifo(d.options.Config.File, 0o600)))
	d.startReloading()
	d.look()
	if files := d.watched(); files != nil || log.Len() > 0 {
		t.Errorf("watches %q\n%s", files, log)
	}
}

// TestLookAtCertificates: a new certificate is served without a signal; half of
// a pair is not, and the old one stays.
func TestLookAtCertificates(t *testing.T) {
	cert, key := certificateFiles(t)
	other, otherKey := certificateFiles(t)
	d, log, _, _ := looking(t, configs.PublicListener{Addr: ":1", TLS: configs.TLS{CertFile: cert, KeyFile: key}})
	if diff := cmp.Diff([]string{d.options.Config.File, cert, key}, d.watched()); diff != "" {
		t.Errorf("watched (-want +got):\n%s", diff)
	}
	first := d.certificate.Load()
	d.look()
	must(t, os.Rename(other, cert))
	d.look()
	if d.certificate.Load() != first || strings.Contains(log.String(), "configuration reloaded") {
		t.Errorf("half a pair was taken:\n%s", log)
	}
	if diff := cmp.Diff([]string{"config_refused"}, codes(d)); diff != "" {
		t.Errorf("alarms (-want +got):\n%s", diff)
	}
	must(t, os.Rename(otherKey, key))
	d.look()
	if d.certificate.Load() == first || len(codes(d)) > 0 {
		t.Errorf("the new pair was not taken: alarms %v\n%s", codes(d), log)
	}
}

// TestProfilesWait: a profile that rests on what only a restart makes waits for that,
// and all else of the file is applied. One of its name stays as a whole, also
// when the file changes again; one that the file does not have any more goes.
func TestProfilesWait(t *testing.T) {
	d, _, next, _ := looking(t, configs.PublicListener{Addr: ":1", Insecure: true})
	running := d.options.Config
	running.Roles, running.Rings = configs.Roles(), []configs.Ring{{Name: "web", MaxTokenTTL: 60e9}}
	profile := func(name, ring, subject string, ttl strictyaml.Duration) configs.Profile {
		return configs.Profile{Name: name, Ring: ring, Subject: configs.Subject{Fixed: subject}, TTL: configs.TTL{Max: ttl}}
	}
	running.Profiles = []configs.Profile{profile("a", "web", "old", 60e9), profile("b", "web", "old", 60e9), profile("c", "web", "old", 60e9), profile("d", "web", "old", 60e9)}
	*next = *running
	d.startReloading()
	reload := func(alarm string, want, now []configs.Profile) {
		t.Helper()
		next.Profiles = now
		held, waits := d.fit(next)
		if diff := cmp.Diff(want, held.Profiles); diff != "" {
			t.Errorf("in force (-want +got):\n%s", diff)
		}
		d.reloading.profiles = held.Profiles
		text := ""
		for _, a := range d.waiting(next, waits) {
			_, text, _ = strings.Cut(a.Message, "of the issuer: ")
		}
		if text != alarm {
			t.Errorf("alarm %q, want %q", text, alarm)
		}
	}
	was := func(name string) configs.Profile { return profile(name, "web", "old", 60e9) }
	reload("", []configs.Profile{was("b"), profile("a", "web", "new", 60e9)}, []configs.Profile{was("b"), profile("a", "web", "new", 60e9)})
	reload("", running.Profiles, running.Profiles)
	next.Rings = append(slices.Clone(running.Rings), configs.Ring{Name: "more", MaxTokenTTL: 60e9})
	wait := "profiles[1].ring, profiles[2].ttl.max, profiles[3].ring, rings; until then of these profiles holds what the file said before: b, c; until then there are no profiles e"
	reload(wait, []configs.Profile{profile("a", "web", "new", 30e9), was("b"), was("c")},
		[]configs.Profile{profile("a", "web", "new", 30e9), profile("b", "more", "new", 10e9), profile("c", "web", "new", 61e9), profile("e", "more", "new", 60e9)})
	reload(wait, []configs.Profile{profile("a", "web", "newer", 30e9), was("b"), was("c")},
		[]configs.Profile{profile("a", "web", "newer", 30e9), profile("b", "more", "newer", 10e9), profile("c", "web", "newer", 61e9), profile("e", "more", "newer", 60e9)})
	reload("rings", []configs.Profile{was("c")}, []configs.Profile{was("c")})
	reload("profiles[0].ring, rings; until then there are no profiles b", nil, []configs.Profile{profile("b", "more", "new", 10e9)}) // which had gone
	running.Roles = []configs.Role{configs.Publisher}
	if held, waits := d.fit(next); held != next || waits != nil {
		t.Errorf("nobody signs here: %v", waits)
	}
}

// A FIFO in the place of the configuration is refused, and the reload that met it
// comes back; so is one in the place of a certificate.
func TestReloadDoesNotWaitForAFIFO(t *testing.T) {
	cert, key := certificateFiles(t)
	d, _, _, _ := looking(t, configs.PublicListener{Addr: ":1", TLS: configs.TLS{CertFile: cert, KeyFile: key}})
	d.startReloading()
	file := d.options.Config.File
	ends := func(path, want string) {
		t.Helper()
		must(t, errors.Join(os.Rename(path, path+".away"), syscall.Mkfifo(path, 0o600)))
		done := make(chan struct{})
		go func() { defer close(done); d.reload(true) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("the reload waits for %s", path)
		}
		if a := d.reloadAlarms(); len(a) != 1 || a[0].Code != "config_refused" || !strings.Contains(a[0].Message, want) {
			t.Errorf("%+v", a)
		}
		must(t, os.Rename(path+".away", path))
	}
	ends(file, file+" is no regular file any more: put a file there")
	ends(key, key+" is no regular file")
	d.reload(true)
	if a := d.reloadAlarms(); len(a) != 0 {
		t.Errorf("with the files: %+v", a)
	}
}
