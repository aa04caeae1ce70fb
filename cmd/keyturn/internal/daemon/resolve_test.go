package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/configs"
)

const faulty = `store: local
state_dir: state
local: {key_file: seal.key}
issuers:
  - {name: main, revision: 1, url: "https://a.example", publish: [{name: file, file: a.json}]}
  - {name: other, revision: 1, url: "https://b.example", publish: [{name: file, file: b.json}]}
rings:
  - {name: web, issuer: main, algorithm: ES256, rotate: "0 0 31 2 *"}
  - name: mobile
    issuer: other
    algorithm: ES256
    rotate: "* * * * *"
profiles:
  - {name: good, ring: web, allow: [{uid: 0}], subject: {fixed: me}, audiences: [a]}
  - name: bad
    ring: web
    allow: [{uid: 0}]
    subject: {pattern: "("}
    audiences: [a]
    when: "peer.socket == 'typo'"
audit: {file: audit.jsonl}
`

// Schedules, timing and profiles are judged by different parts; their faults are
// told at once, each with its place in the file.
func TestFaultsOfAllParts(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keyturn.yaml")
	must(t, os.WriteFile(file, []byte(faulty), 0o600))
	cfg, _, err := configs.Load(configs.Options{Environ: []string{"KEYTURN_CONFIG=" + file}})
	must(t, err)
	_, err = Check(cfg)
	var faults configs.Faults
	if !errors.As(err, &faults) || len(faults) != 4 {
		t.Fatalf("Check = %v, want four faults", err)
	}
	for i, want := range []string{
		":6: issuers[1]: issuer \"other\": outage_budget (20s) is too short",
		":8: rings[0].rotate: ring \"web\": schedule \"0 0 31 2 *\" never runs",
		":18: profiles[1].subject.pattern: ",
		":20: profiles[1].when: column 16: peer.socket: there is no sign socket \"typo\": listen.sign has \"default\"",
	} {
		if !strings.HasPrefix(faults[i].String(), file+want) {
			t.Errorf("fault %d: %s\nwant it to begin with %s", i, faults[i], want)
		}
	}
	cfg.Roles = []configs.Role{configs.Rotator, configs.Publisher} // nobody here signs by the profiles
	if _, err = Check(cfg); !errors.As(err, &faults) || len(faults) != 2 {
		t.Errorf("without the role signer: %v", err)
	}
}
