package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// versionSite has one profile, whose tokens tell which file it came from: the
// subject, an added claim and an audience do, and the condition holds them together.
func versionSite(t *testing.T) *site {
	s := newSite(t).edit("@every 10s", "@every 1h").edit("level: info", "level: debug")
	head, _, _ := strings.Cut(s.text, "profiles:\n")
	s.text = head + `profiles:
  - name: probe
    ring: web
    allow: [{socket: default}]
    subject: {fixed: v0}
    audiences: [api-v0]
    claims: {add: [{name: version, value: v0}]}
    when: "request.subject == 'v0' && claims.version == 'v0' && request.audience == ['api-v0']"
audit: {file: audit.jsonl}
`
	return s
}

// version is the site's file with another version.
func (s *site) version(n int) string { return strings.ReplaceAll(s.text, "v0", fmt.Sprint("v", n)) }

// swap makes the folder of the configuration one of a ConfigMap: the file is a
// link through ..data, and a version is a folder to which that is turned.
func (s *site) swap(n int, text string) {
	s.t.Helper()
	dir := fmt.Sprint("..version", n)
	must(s.t, os.Mkdir(s.path(dir), 0o755))
	s.write(dir+"/keyturn.yaml", text, 0o644)
	must(s.t, errors.Join(os.Symlink(dir, s.path("..data_tmp")), os.Rename(s.path("..data_tmp"), s.path("..data"))))
	if n == 0 {
		must(s.t, os.Symlink("..data/keyturn.yaml", s.path("keyturn.yaml")))
		return
	}
	must(s.t, os.RemoveAll(s.path(fmt.Sprint("..version", n-1))))
}

// replace writes the configuration as an editor does: a new file over the old one.
func (s *site) replace(text string) {
	s.t.Helper()
	s.write(".keyturn.yaml.new", text, 0o644)
	must(s.t, os.Rename(s.path(".keyturn.yaml.new"), s.path("keyturn.yaml")))
}

// probe is the version that a token tells of.
func (d *daemon) probe() (string, error) {
	out, err := d.token(api.SignRequest{Profile: "probe"})
	if err != nil {
		return "", err
	}
	c := claimsOf(out.Token)
	v, _ := c["sub"].(string)
	if aud := fmt.Sprint(c["aud"]); c["version"] != v || aud != "[api-"+v+"]" {
		return "", fmt.Errorf("a token of no version: %v", c)
	}
	return v, nil
}

// becomes waits until tokens are of a version, and the file on disk is what holds.
func (d *daemon) becomes(n int) {
	d.t.Helper()
	within(d.t, 20*time.Second, fmt.Sprint("version ", n), func() error {
		v, err := d.probe()
		if err != nil || v != fmt.Sprint("v", n) {
			return fmt.Errorf("it is %s, %v", v, err)
		}
		return d.lacksAlarm("config_refused")
	})
}

func (d *daemon) alarm(code string) (string, error) {
	status, h, err := d.health("/readyz")
	if err != nil || status != 200 {
		return "", fmt.Errorf("/readyz %d, %w", status, err)
	}
	for _, r := range h.Reasons {
		if r.Code == code {
			return r.Message, nil
		}
	}
	return "", nil
}

func (d *daemon) lacksAlarm(code string) error {
	text, err := d.alarm(code)
	if text != "" {
		return fmt.Errorf("%s: %s", code, text)
	}
	return err
}

// refusesFile waits for the alarm about the file on disk, while an older version holds.
func (d *daemon) refusesFile(n int, texts ...string) {
	d.t.Helper()
	within(d.t, 20*time.Second, "alarm config_refused", func() error {
		text, err := d.alarm("config_refused")
		for _, want := range texts {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %q in %q (%v)", want, text, err)
			}
		}
		return nil
	})
	if v, err := d.probe(); err != nil || v != fmt.Sprint("v", n) {
		d.t.Errorf("the old configuration does not hold: %s, %v", v, err)
	}
}

// TestWatchConfigMap: the kubelet swaps ..data, and the daemon follows without a
// signal. A version with a fault changes nothing, and an alarm tells.
func TestWatchConfigMap(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	s.swap(0, s.text)
	d := start(t, s.daemon(), nil, "run", "--config", s.path("keyturn.yaml"))
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	s.swap(1, s.version(1))
	d.becomes(1)
	s.swap(2, strings.Replace(s.version(2), "request.subject", "request.subjekt", 1))
	d.refusesFile(1, "keyturn.yaml:32: profiles[0].when: column 8: there is no request.subjekt: request has audience, profile, subject, ttl_seconds")
	if got := d.metric("keyturn_config_last_reload_successful"); got != "keyturn_config_last_reload_successful 0" {
		t.Error(got)
	}
	s.swap(3, s.version(3))
	d.becomes(3)
	if got := reloads(d); !strings.Contains(got, `result="ok"} 2`) && !strings.Contains(got, `"success"} 2`) {
		t.Errorf("two good reloads and one bad one: %s", got)
	}
}

// TestWatchFile: what editors, slow copies and careless hands do to a file.
func TestWatchFile(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.save())
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	s.replace(s.version(1))
	d.becomes(1)

	before := reloads(d)
	now := time.Now()
	must(t, os.Chtimes(s.path("keyturn.yaml"), now, now))
	d.logged(20*time.Second, "configuration looked at, nothing has changed")
	if after := reloads(d); after != before {
		t.Errorf("a touch reloads: %s, before %s", after, before)
	}

	must(t, os.Remove(s.path("keyturn.yaml")))
	d.refusesFile(1, "no configuration at "+s.path("keyturn.yaml"))
	s.replace(s.version(2))
	d.becomes(2)

	// Half of a file stands there for a while, as a slow copy leaves it.
	whole := s.version(3)
	half := strings.Index(whole, "audiences:") + len("audi")
	s.write("keyturn.yaml", whole[:half], 0o644)
	d.refusesFile(2, "keyturn.yaml")
	f, err := os.OpenFile(s.path("keyturn.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(whole[half:])
	must(t, errors.Join(err, f.Close()))
	d.becomes(3)

	// What is wrong may lie outside of the text.
	must(t, os.Chmod(s.path("keyturn.yaml"), 0o666))
	d.refusesFile(3, "chmod o-w")
	must(t, os.Chmod(s.path("keyturn.yaml"), 0o644))
	d.becomes(3)
}

// TestWatchFalse: then SIGHUP alone reloads; and it does so with watch, too.
func TestWatchFalse(t *testing.T) {
	t.Parallel()
	s := versionSite(t).edit("store: local", "store: local\nwatch: false")
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.save())
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	s.replace(s.version(1))
	time.Sleep(2 * time.Second) // four times what a watch waits: there is no event to wait for
	if v, err := d.probe(); err != nil || v != "v0" {
		t.Errorf("without a signal: %s, %v", v, err)
	}
	s.replace(strings.Replace(s.version(2), "watch: false", "watch: true", 1))
	must(t, d.cmd.Process.Signal(syscall.SIGHUP))
	d.becomes(2)
	s.replace(strings.Replace(s.version(3), "watch: false", "watch: true", 1))
	d.becomes(3)
}

// TestReloadNamesWhatWaits: an alarm names what only a restart applies, until
// the file says again what runs. Profiles that need it wait, too.
func TestReloadNamesWhatWaits(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.save())
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	s.replace(strings.NewReplacer("path: sign.sock", "path: other.sock", "leeway: 1s", "leeway: 2s", "revision: 1", "revision: 2", "v0", "v1").Replace(s.text))
	d.becomes(1)
	within(t, 20*time.Second, "alarm restart_needed", func() error {
		text, err := d.alarm("restart_needed")
		if !strings.Contains(text, "only a restart applies") || !strings.HasSuffix(text, ": issuers[0].leeway, issuers[0].revision, listen.sign[0].path") {
			return fmt.Errorf("%q, %v", text, err)
		}
		return nil
	})
	s.replace(strings.Replace(s.version(2), "profiles:", "  - {name: more, issuer: main, algorithm: ES256, rotate: \"@every 1h\", max_token_ttl: 10s}\nprofiles:", 1))
	d.becomes(2) // a ring that nobody uses yet
	// Its profile waits with it, as a whole; so does a new one. All else is applied.
	text := strings.Replace(s.version(3), "profiles:", "  - {name: more, issuer: main, algorithm: ES256, rotate: \"@every 1h\", max_token_ttl: 10s}\nprofiles:", 1)
	other := `
  - {name: other, ring: web, allow: [{socket: default}], subject: {fixed: me}, audiences: [a]}
  - {name: new, ring: more, allow: [{socket: default}], subject: {fixed: me}, audiences: [a]}
audit:`
	s.replace(strings.NewReplacer("ring: web", "ring: more", "\naudit:", other).Replace(text))
	within(t, 20*time.Second, "alarm restart_needed with profiles", func() error {
		text, err := d.alarm("restart_needed")
		if !strings.HasSuffix(text, ": profiles[0].ring, profiles[2].ring, rings; until then of these profiles holds what the file said before: probe; until then there are no profiles new") {
			return fmt.Errorf("%q, %v", text, err)
		}
		return d.lacksAlarm("config_refused")
	})
	if v, err := d.probe(); err != nil || v != "v2" {
		t.Errorf("the profile that waits: %s, %v", v, err)
	}
	if code := d.asks(api.SignRequest{Profile: "other"}); code != "" {
		t.Errorf("a profile beside one that waits: %q", code)
	}
	if code := d.asks(api.SignRequest{Profile: "new"}); code != api.Forbidden {
		t.Errorf("a profile on a ring that is not there yet: %q", code)
	}
	s.replace(s.version(4))
	d.becomes(4)
	if err := d.lacksAlarm("restart_needed"); err != nil {
		t.Error(err)
	}
}

// TestWatchFolder: the folder itself is exchanged, as a deployment does that
// renames whole trees.
func TestWatchFolder(t *testing.T) {
	t.Parallel()
	s := versionSite(t)
	for _, path := range []string{"state_dir: state", "dir: custody", "key_file: seal.key", "path: sign.sock", "path: admin.sock", "file: www/jwks.json", "file: audit.jsonl"} {
		field, name, _ := strings.Cut(path, ": ")
		s.edit(path, field+": "+s.path(name))
	}
	folder := func(name string, n int) {
		must(t, os.Mkdir(s.path(name), 0o755))
		s.write(name+"/keyturn.yaml", s.version(n), 0o644)
	}
	folder("etc", 0)
	d := startBinary(t, keyturn, s.daemon(), nil, "run", "--config", s.path("etc/keyturn.yaml"))
	within(t, 30*time.Second, "first token", func() error { _, err := d.probe(); return err })
	for n := 1; n <= 2; n++ {
		folder("etc.new", n)
		must(t, errors.Join(os.Rename(s.path("etc"), s.path(fmt.Sprint("etc.old", n))), os.Rename(s.path("etc.new"), s.path("etc"))))
		d.becomes(n)
	}
	s.write("etc/keyturn.yaml", s.version(3), 0o644) // and the new one is watched
	d.becomes(3)
	must(t, os.RemoveAll(s.path("etc")))
	d.refusesFile(3, "no configuration at")
	folder("etc", 4)
	d.becomes(4)
}
