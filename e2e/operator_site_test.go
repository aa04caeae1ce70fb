package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// siteFile is a configuration on embedded custody with a fast clockwork: a
// rotation every ten seconds, of which a new key waits three (its lead).
// PUBLIC and STATUS stand for addresses.
const siteFile = `store: local
state_dir: state
sync_interval: 200ms
log: {level: info, format: json}
local: {dir: custody, key_file: seal.key}
listen:
  sign: [{name: default, path: sign.sock, mode: "0660"}]
  admin: {path: admin.sock}
  public: {addr: "PUBLIC", insecure: true}
  status: {addr: "STATUS"}
issuers:
  - name: main
    revision: 1
    url: http://PUBLIC
    consumer_cache: 2s
    jwks_max_age: 2s
    clock_skew: 1s
    leeway: 1s
    outage_budget: 4s
    publish:
      - {name: file, file: www/jwks.json}
      - {name: endpoint, http: true}
rings:
  - {name: web, issuer: main, algorithm: ES256, rotate: "@every 10s", max_token_ttl: 10s}
profiles:
  - name: web
    ring: web
    allow: [{socket: default}]
    subject: {pattern: "^[a-z]+$"}
    audiences: ["*"]
    claims: {allow: ["*"]}
audit: {file: audit.jsonl}
`

// site is a folder as an operator would have it: a configuration, the key that
// seals the custody, and what the daemon makes.
type site struct {
	t              *testing.T
	dir            string
	public, status string
	text           string // of the configuration
}

// newSite makes the folder. It is short, for the path of a socket holds 107
// bytes, and others may enter it, as they may enter /run.
func newSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kt-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &site{t: t, dir: dir, public: freeAddr(t), status: freeAddr(t)}
	s.text = strings.NewReplacer("PUBLIC", s.public, "STATUS", s.status).Replace(siteFile)
	must(t, os.Chmod(dir, 0o755))
	must(t, os.Mkdir(s.path("www"), 0o755))
	seal := make([]byte, 32)
	_, _ = rand.Read(seal) // never fails: crypto/rand ends the process first
	s.write("seal.key", base64.StdEncoding.EncodeToString(seal), 0o600)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	must(s.t, os.WriteFile(s.path(name), []byte(text), mode))
}

// edit replaces a part of the configuration, which has to be in it.
func (s *site) edit(old, new string) *site {
	s.t.Helper()
	if !strings.Contains(s.text, old) {
		s.t.Fatalf("the configuration has no %q to edit:\n%s", old, s.text)
	}
	s.text = strings.ReplaceAll(s.text, old, new)
	return s
}

// save writes the configuration and returns its path.
func (s *site) save() string {
	s.t.Helper()
	s.write("keyturn.yaml", s.text, 0o644)
	return s.path("keyturn.yaml")
}

// daemon is what the tests' harness needs to know of the site.
func (s *site) daemon() daemon {
	return daemon{dir: s.dir, sign: s.path("sign.sock"), admin: s.path("admin.sock"), public: s.public, status: s.status}
}

// start runs the daemon and waits until it signs.
func (s *site) start(profile string) *daemon {
	s.t.Helper()
	d := s.run()
	d.canSign(30*time.Second, profile)
	return d
}

// run runs the daemon.
func (s *site) run() *daemon {
	s.t.Helper()
	return start(s.t, s.daemon(), nil, "run", "--config", s.save())
}

// refuses runs a daemon that has to end by itself, and returns what it said.
func (s *site) refuses() string {
	s.t.Helper()
	_, stderr, code := cli(s.t, nil, "run", "--config", s.save())
	if code != 1 {
		s.t.Errorf("keyturn run: exit code %d, want 1:\n%s", code, stderr)
	}
	return stderr
}

// standby waits until a ring has a standby key that may sign, and returns it.
func (d *daemon) standby(limit time.Duration, ring string) api.Key {
	d.t.Helper()
	var k api.Key
	within(d.t, limit, "a standby key that may sign", func() error {
		var found bool
		if k, found = d.key(ring, "standby"); !found || len(k.WaitingFor) > 0 || k.SafeAt.IsZero() || time.Now().Before(k.SafeAt) {
			return fmt.Errorf("standby %+v", k)
		}
		return nil
	})
	return k
}

// logged waits for text in the daemon's output.
func (d *daemon) logged(limit time.Duration, text string) {
	d.t.Helper()
	within(d.t, limit, "log line", func() error {
		if !strings.Contains(d.out.String(), text) {
			return fmt.Errorf("no %q in it", text)
		}
		return nil
	})
}

// records reads an audit log: whole lines of JSON, or the test fails.
func records(t *testing.T, path string) []map[string]any {
	t.Helper()
	doc, err := os.ReadFile(path)
	must(t, err)
	if len(doc) > 0 && doc[len(doc)-1] != '\n' {
		t.Fatalf("%s ends in the middle of a line", path)
	}
	var out []map[string]any
	for line := range strings.Lines(string(doc)) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v in %q", path, err, line)
		}
		out = append(out, r)
	}
	return out
}

// wants reports texts that are missing in what was said.
func wants(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%q is missing in:\n%s", text, said)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
