package configs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRefusesPathsThatCollide: what is written at one path is nothing else, be it
// named by a setting, made beside what is named, or spelled in another way.
func TestRefusesPathsThatCollide(t *testing.T) {
	const log, web = "audit: {file: /var/log/audit.jsonl}", "file: /srv/jwks.json"
	for name, tc := range map[string]struct{ old, with, want string }{
		"log and seal key":        {log, "audit: {file: /etc/keyturn/seal.key}", ":17: audit.file: /etc/keyturn/seal.key is local.key_file as well: choose another"},
		"in another spelling":     {log, "audit: {file: /etc//x/../keyturn/./seal.key}", "audit.file: /etc/keyturn/seal.key is local.key_file as well"},
		"log and socket":          {log, "audit: {file: /run/keyturn/admin.sock}", "audit.file: /run/keyturn/admin.sock is listen.admin.path as well"},
		"log and configuration":   {log, "audit: {file: keyturn.yaml}", "keyturn.yaml is the configuration itself as well"},
		"log and published file":  {log, "audit: {file: /srv/jwks.json}", "audit.file: /srv/jwks.json is issuers[0].publish[0].file as well"},
		"log and side file":       {log, "audit: {file: /srv/jwks.json.keyturn}", "audit.file: /srv/jwks.json.keyturn is the side file of issuers[0].publish[0].file as well"},
		"log's lock and seal key": {"seal.key}", "audit.jsonl.lock}\naudit: {file: /etc/keyturn/audit.jsonl}", ":4: audit.file: /etc/keyturn/audit.jsonl.lock, the lock, is local.key_file as well"},
		"log and folder":          {log, "audit: {file: /var/lib/keyturn}", "audit.file: /var/lib/keyturn is state_dir as well"},
		"published and seal key":  {web, "file: /etc/keyturn/seal.key", ":8: issuers[0].publish[0].file: /etc/keyturn/seal.key is local.key_file as well"},
		"published and config":    {web, "file: keyturn.yaml", "is the configuration itself as well"},
		"published and socket":    {web, "file: /run/keyturn/sign.sock", "issuers[0].publish[0].file: /run/keyturn/sign.sock is listen.sign[0].path as well"},
		"socket and seal key":     {"store: local", "store: local\nlisten: {sign: [{name: a, path: /etc/keyturn/seal.key}]}", ":2: listen.sign[0].path: /etc/keyturn/seal.key is local.key_file as well"},
		"socket and certificate":  {"store: local", "store: local\nlisten: {sign: [{name: a, path: /tls.key}], public: {addr: \":1\", tls: {cert_file: /tls.crt, key_file: /tls.key}}}", "listen.sign[0].path: /tls.key is listen.public.tls.key_file as well"},
		"state and custody":       {"local: {", "local: {dir: /var/lib/keyturn, ", ":3: local.dir: /var/lib/keyturn is state_dir as well"},
		"state within custody":    {"local: {", "local: {dir: /var/lib, ", ":2: state_dir: /var/lib/keyturn lies in local.dir"},
	} {
		t.Run(name, func(t *testing.T) {
			text := edit(t, minimal, tc.old, tc.with)
			if strings.Count(text, "audit: {") > 1 {
				text = strings.Replace(text, log+"\n", "", 1)
			}
			_, _, err := loadText(t, text, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v\nwant an error with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "faults in") {
				t.Errorf("more than one fault for one mistake: %v", err)
			}
		})
	}
	for name, tc := range map[string]struct{ with, want string }{
		"secret id": {"audit: {file: /etc/secret}", "audit.file: /etc/secret is vault.auth.secret_id_file as well"},
		"authority": {"audit: {file: /etc/ca.pem}", "audit.file: /etc/ca.pem is vault.ca_cert_file as well"},
	} {
		text := edit(t, edit(t, minimalVault, log, tc.with), "vault:\n", "vault:\n  ca_cert_file: /etc/ca.pem\n")
		if _, _, err := loadText(t, text, Options{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Load = %v\nwant an error with %q", name, err, tc.want)
		}
	}
}

// TestPathsThatMayBeAlike: one PEM file may hold a certificate and its key, and
// the custody stands in state_dir unless the file says otherwise.
func TestPathsThatMayBeAlike(t *testing.T) {
	text := edit(t, minimal, "store: local", "store: local\nlisten: {public: {addr: \":1\", tls: {cert_file: /tls.pem, key_file: /tls.pem}}}")
	text = edit(t, text, "publish: [", "publish: [{name: endpoint, http: true}, ")
	if _, _, err := loadText(t, text, Options{}); err != nil {
		t.Error(err)
	}
}

// TestCollidesWithARelativeConfiguration: its path is compared as an absolute one.
func TestCollidesWithARelativeConfiguration(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	text := edit(t, minimal, "/var/log/audit.jsonl", filepath.Join(dir, "keyturn.yaml"))
	must(t, os.WriteFile("keyturn.yaml", []byte(text), 0o600))
	if _, _, err := Load(Options{Environ: []string{"KEYTURN_CONFIG=keyturn.yaml"}}); err == nil || !strings.Contains(err.Error(), "is the configuration itself as well") {
		t.Errorf("Load = %v", err)
	}
}
