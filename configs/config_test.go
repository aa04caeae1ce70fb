package configs

import (
	"io/fs"
	"log/slog"
	"os/user"
	"strings"
	"testing"
)

func TestSockets(t *testing.T) {
	s, a := SignSocket{Mode: "0660"}, AdminSocket{Mode: "600"}
	if s.FileMode() != fs.FileMode(0o660) || a.FileMode() != fs.FileMode(0o600) {
		t.Errorf("modes %o, %o", s.FileMode(), a.FileMode())
	}
	root, err := user.LookupGroupId("0")
	if err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]int{"": -1, "0": 0, "2000": 2000, "4294967294": 4294967294, root.Name: 0} {
		got, err := SignSocket{Group: group}.GID()
		if err != nil || got != want {
			t.Errorf("GID of %q = %d, %v, want %d", group, got, err, want)
		}
	}
	if _, err := (AdminSocket{Group: "no-such-group"}).GID(); err == nil || !strings.Contains(err.Error(), "groupadd --system no-such-group") {
		t.Errorf("unknown group: %v", err)
	}
}

func TestSlogLevel(t *testing.T) {
	for level, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got := (Log{Level: level}).SlogLevel(); got != want {
			t.Errorf("level %s = %s", level, got)
		}
	}
}

// What is not used where it stands, and what protects nothing, is talked about.
func TestWarnings(t *testing.T) {
	vaultBlock := "vault:\n  address: https://vault.example:8200\n  auth: {method: token}\n"
	for name, tc := range map[string]struct{ text, want string }{
		"vault beside store local": {minimal + vaultBlock, "vault is not used with store: local"},
		"local beside store vault": {minimalVault + "local: {dir: /d, key_file: /k}\n", "local is not used with store: vault"},
		"key beside what it seals": {edit(t, minimal, "/etc/keyturn/seal.key", "/var/lib/keyturn/custody/seal.key"), "keep the two apart"},
		"adopt_until has passed":   {edit(t, minimal, "file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: 2020-01-01"), "issuers[0].publish[0].adopt_until: 2020-01-01 has passed: no key is taken over any more"},
		"public serves nothing":    {minimal + "listen: {public: {addr: \":8443\", insecure: true}}\n", "listen.public serves nothing"},
	} {
		_, warnings, err := loadText(t, tc.text, Options{})
		if err != nil || len(warnings) != 1 || !strings.Contains(string(warnings[0]), tc.want) {
			t.Errorf("%s: %v, warnings %q, want %q", name, err, warnings, tc.want)
		}
	}
}

// Roles apart share a file: a publisher needs no audit log, a signer no listener.
func TestRolesApart(t *testing.T) {
	both := edit(t, minimalVault, "publish: [{name: file, file: /srv/jwks.json}]",
		`confirm: ["https://t.example/jwks.json"], publish: [{name: e, http: true}]`)
	for role, ok := range map[string]bool{"rotator": true, "signer": true, "publisher": false} {
		_, _, err := loadText(t, "roles: ["+role+"]\n"+both, Options{})
		if (err == nil) != ok {
			t.Errorf("%s without a listener: %v", role, err)
		}
	}
	quiet := edit(t, minimalVault, "audit: {file: /var/log/audit.jsonl}\n", "")
	for role, ok := range map[string]bool{"publisher": true, "signer": false} {
		if _, _, err := loadText(t, "roles: ["+role+"]\n"+quiet, Options{}); (err == nil) != ok {
			t.Errorf("%s without an audit file: %v", role, err)
		}
	}
}
