package configs

import (
	"strings"
	"testing"
)

// Each of these must be refused with the line it stands in and words that say
// how to mend it.
func TestRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ old, with, want string }{
		"octal integer":          {"revision: 1", "revision: 010", `:6: issuers[0].revision: "010" is not a whole number`},
		"hexadecimal integer":    {"revision: 1", "revision: 0x10", `not a whole number`},
		"fraction":               {"algorithm: ES256", "algorithm: RS256, rsa_bits: 3072.9", `:10: rings[0].rsa_bits: "3072.9" is not a whole number`},
		"integer in quotes":      {"revision: 1", `revision: "1"`, `not a whole number`},
		"integer too large":      {"revision: 1", "revision: 99999999999999999999", "issuers[0].revision"},
		"zero bits":              {"algorithm: ES256", "algorithm: RS256, rsa_bits: 0", "rsa_bits 0: use 2048"},
		"bits without RSA":       {"algorithm: ES256", "algorithm: ES256, rsa_bits: 2048", "ES256 has no modulus"},
		"uid above 32 bits":      {"uid: 0", "uid: 4294967296", ":14: profiles[0].allow[0].uid: 4294967296 is out of range"},
		"negative uid":           {"uid: 0", "uid: -1", "-1 is out of range"},
		"uid true":               {"uid: 0", "uid: true", "not a whole number"},
		"uid 1e3":                {"uid: 0", "uid: 1e3", "not a whole number"},
		"empty allow item":       {"{uid: 0}", "{}", ":14: profiles[0].allow[0]: is empty and would match everybody"},
		"duration without unit":  {"revision: 1", "revision: 1\n    leeway: 60", ":7: issuers[0].leeway: 60 has no unit: write 60s"},
		"duration zero":          {"revision: 1", "revision: 1\n    leeway: 0s", "no time at all"},
		"negative duration":      {"revision: 1", "revision: 1\n    leeway: -5s", `issuers[0].leeway: "-5s" is negative: write a number with a unit`},
		"duplicate field":        {"    revision: 1", "    revision: 1\n    revision: 2", ":7: issuers[0].revision: appears twice, first in line 6"},
		"capital field":          {"audit:", "Audit:", "Audit: unknown field: is it audit?"},
		"misspelled field":       {"state_dir:", "statedir:", "statedir: unknown field: is it state_dir?"},
		"field elsewhere":        {"revision: 1", "revision: 1\n    sync_interval: 5s", "unknown field: it belongs at the top of the file"},
		"unknown field":          {"revision: 1", "revision: 1\n    colour: red", "unknown field: the fields of issuers[0] are clock_skew, confirm,"},
		"text is a number":       {"audiences: [a]", "audiences: [12]", `12 would be read as a number, and this is text: write it in quotes, "12"`},
		"text is a date":         {"fixed: me", "fixed: 2020-01-01", "would be read as a date"},
		"text is true":           {"fixed: me", "fixed: true", "would be read as true or false"},
		"empty text":             {"fixed: me", `fixed: ""`, "is empty"},
		"null":                   {"fixed: me", "fixed: ~", "subject.fixed: is empty"},
		"yes for true":           {"file: /srv/jwks.json", "file: /srv/jwks.json, required: yes", `is "yes": write true or false`},
		"alias":                  {"audiences: [a]", "audiences: [&x a, *x]", "*x is an alias"},
		"merge":                  {"    revision: 1", "    <<: {revision: 1}", "a merge with << is not read"},
		"tag":                    {"revision: 1", "revision: !!int 1", "is a tag"},
		"list for mapping":       {"subject: {fixed: me}", "subject: [me]", "is a list"},
		"mapping for list":       {"audiences: [a]", "audiences: {a: b}", "must be a list"},
		"value for mapping":      {"subject: {fixed: me}", "subject: me", "is a single value, must be a mapping"},
		"when is no text":        {"audiences: [a]", "audiences: [a]\n    when: true", ":17: profiles[0].when: true would be read as true or false, and this is text"},
		"when is empty":          {"audiences: [a]", "audiences: [a]\n    when: \"\"", ":17: profiles[0].when: is empty"},
		"not built: bucket":      {"file: /srv/jwks.json", `bucket: "s3://x/y"`, "issuers[0].publish[0].bucket: not built yet: publishing to object stores"},
		"adopt_until elsewhere":  {"revision: 1", "revision: 1\n    adopt_until: 2027-01-01", ":7: issuers[0].adopt_until: unknown field: it belongs under issuers[].publish[]"},
		"adopt_until of http":    {"file: /srv/jwks.json", "http: true, adopt_until: 2027-01-01", "publish[0].adopt_until: belongs to a file"},
		"adopt_until no date":    {"file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: soon", `publish[0].adopt_until: "soon" is not a date: write 2027-03-01`},
		"adopt_until a span":     {"file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: 90d", `"90d" is not a date`},
		"adopt_until no day":     {"file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: 2027-02-30", `"2027-02-30" is not a date`},
		"adopt_until a number":   {"file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: 2027", `"2027" is not a date`},
		"adopt_until a typo":     {"file: /srv/jwks.json", "file: /srv/jwks.json, adopt_until: 0227-01-01", `"0227-01-01" is not a date`},
		"rate_limit":             {"audiences: [a]", "audiences: [a]\n    rate_limit: {rps: 5}", ":17: profiles[0].rate_limit: write rate: {per_second: 50, burst: 100}"},
		"rate is a number":       {"audiences: [a]", "audiences: [a]\n    rate: 5", ":17: profiles[0].rate: is a single value, must be a mapping"},
		"rate of zero":           {"audiences: [a]", "audiences: [a]\n    rate: {per_second: 0}", ":17: profiles[0].rate.per_second: is 0: at least 1; take rate out for no limit"},
		"rate below zero":        {"audiences: [a]", "audiences: [a]\n    rate: {per_second: -1}", "per_second: is -1: at least 1"},
		"rate without a rate":    {"audiences: [a]", "audiences: [a]\n    rate: {burst: 5}", ":17: profiles[0].rate.per_second: is missing: how many"},
		"rate in halves":         {"audiences: [a]", "audiences: [a]\n    rate: {per_second: 0.5}", `"0.5" is not a whole number`},
		"burst of zero":          {"audiences: [a]", "audiences: [a]\n    rate: {per_second: 5, burst: 0}", "rate.burst: is 0: at least 1, or take it out for per_second"},
		"rate elsewhere":         {"revision: 1", "revision: 1\n    rate: {per_second: 5}", "issuers[0].rate: unknown field"},
		"watch: yes":             {"store: local", "store: local\nwatch: yes", `watch: is "yes": write true or false`},
		"not built: transit":     {"algorithm: ES256", "algorithm: ES256, custody: transit", `rings[0].custody: "transit" is not built yet`},
		"secret inline":          {"local: {key_file: /etc/keyturn/seal.key}", "local: {key: abc}", "local.key: a secret never stands in this file"},
		"custody of vault":       {"algorithm: ES256", "algorithm: ES256, custody: vaultkv", "store local keeps private halves as local"},
		"unknown algorithm":      {"algorithm: ES256", "algorithm: HS256", `algorithm "HS256": use one of`},
		"unknown store":          {"store: local", "store: redis", `store: "redis" is unknown: use vault, local`},
		"unknown role":           {"store: local", "store: local\nroles: [signor]", `roles[0]: "signor" is unknown`},
		"roles apart":            {"store: local", "store: local\nroles: [signer]", "store local serves one process alone"},
		"no role":                {"store: local", "store: local\nroles: []", "a daemon without a role does nothing"},
		"role twice":             {"store: local", "store: local\nroles: [rotator, signer, publisher, signer]", `"signer" appears twice`},
		"unknown level":          {"store: local", "store: local\nlog: {level: loud}", `log.level: "loud" is unknown`},
		"name syntax":            {"- name: main", "- name: Main", `"Main": names are 1 to 63 characters`},
		"unknown issuer":         {"issuer: main", "issuer: mian", `rings[0].issuer: there is no issuer "mian": the issuers are main`},
		"unknown ring":           {"ring: web", "ring: wob", `profiles[0].ring: there is no ring "wob"`},
		"unknown socket":         {"{uid: 0}", "{socket: x}", `there is no sign socket "x": listen.sign has default`},
		"two subjects":           {"{fixed: me}", `{fixed: me, pattern: "x"}`, "more than one of fixed"},
		"no subject":             {"{fixed: me}", "{}", "profiles[0].subject: is missing"},
		"ttl above ring":         {"audiences: [a]", "audiences: [a]\n    ttl: {max: 2h}", ":17: profiles[0].ttl.max: is 2h, longer than max_token_ttl of ring web (1h)"},
		"ttl default above max":  {"audiences: [a]", "audiences: [a]\n    ttl: {default: 10m, max: 5m}", "is 10m, longer than max (5m)"},
		"ttl in milliseconds":    {"audiences: [a]", "audiences: [a]\n    ttl: {default: 1500ms}", "is 1.5s: whole seconds"},
		"max in milliseconds":    {"audiences: [a]", "audiences: [a]\n    ttl: {max: 1500ms}", "ttl.max: is 1.5s: whole seconds"},
		"group of a socket":      {"store: local", "store: local\nlisten: {admin: {group: a b}}", `:2: listen.admin.group: "a b" is no name of a group`},
		"public address":         {"store: local", "store: local\nlisten: {public: {addr: localhost, insecure: true}}", `:2: listen.public.addr: "localhost": write host:port`},
		"path with an escape":    {"file: /srv/jwks.json", "http: true, path: /%61", `publish[0].path: "/%61": write a plain path`},
		"no revision":            {"    revision: 1\n", "", ":5: issuers[0].revision: is 0: begin with 1"},
		"no state_dir":           {"state_dir: /var/lib/keyturn\n", "", "state_dir: is missing"},
		"replica is a path":      {"store: local", "store: local\nreplica: a/b", `:2: replica: "a/b": write 1 to 64 letters`},
		"anchored too often":     {"audit: {", "audit: {anchor_interval: 10ms, ", "audit.anchor_interval: 10ms: at least 1s"},
		"chain by name":          {"audit: {", "audit: {chain: true, ", "audit.chain: records are chained always"},
		"no audit":               {"audit: {file: /var/log/audit.jsonl}\n", "", "audit.file: is missing: every decision"},
		"no key file":            {"local: {key_file: /etc/keyturn/seal.key}\n", "", "local.key_file: is missing"},
		"both kinds of target":   {"file: /srv/jwks.json", "file: /srv/jwks.json, http: true", "has both file and http"},
		"no kind of target":      {", file: /srv/jwks.json", "", "says nothing about where"},
		"http is false":          {"file: /srv/jwks.json", "http: false", "is false: write http: true"},
		"path of a file":         {"file: /srv/jwks.json", "file: /srv/jwks.json, path: /x", "belongs to http: true"},
		"folder as file":         {"file: /srv/jwks.json", "file: /srv/", "is a folder: name a file in it"},
		"http without listener":  {"file: /srv/jwks.json", "http: true", "needs a listener: add listen.public"},
		"file twice":             {"[{name: file, file: /srv/jwks.json}]", "[{name: a, file: /srv/x}, {name: b, file: /srv/x}]", ":8: issuers[0].publish[1].file: /srv/x is issuers[0].publish[0].file as well: choose another"},
		"target name twice":      {"[{name: file, file: /srv/jwks.json}]", "[{name: a, file: /srv/x}, {name: a, file: /srv/y}]", "is the name of issuers[0].publish[0] as well"},
		"view":                   {"file: /srv/jwks.json", "file: /srv/jwks.json, view: tea", `view "tea": use "kubernetes" or "spiffe"`},
		"long socket path":       {"store: local", "store: local\nlisten: {admin: {path: /" + strings.Repeat("x", 107) + "}}", "is 108 bytes long, and a socket's path holds 107"},
		"socket twice":           {"store: local", "store: local\nlisten: {admin: {path: /run/keyturn/sign.sock}}", ":2: listen.admin.path: /run/keyturn/sign.sock is listen.sign[0].path as well"},
		"mode not quoted":        {"store: local", "store: local\nlisten: {admin: {mode: 0660}}", `write it in quotes, "0660"`},
		"mode":                   {"store: local", "store: local\nlisten: {admin: {mode: \"u+rw\"}}", "is no mode"},
		"mode with x":            {"store: local", "store: local\nlisten: {admin: {mode: \"0770\"}}", "\"0770\": a socket has read and write bits only; 0660 lets its group connect"},
		"mode for everybody":     {"store: local", "store: local\nlisten: {sign: [{name: a, path: /run/a, mode: \"0777\"}]}", "a socket has read and write bits only"},
		"mode without owner":     {"store: local", "store: local\nlisten: {admin: {mode: \"0060\"}}", "keeps the daemon's own user out"},
		"connections":            {"store: local", "store: local\nlisten: {sign: [{name: default, path: /run/s, connections_per_user: 0}]}", "listen.sign[0].connections_per_user: 0 is out of range"},
		"limits":                 {"store: local", "store: local\nlimits: {rate: 5}", "write connections_per_user under listen.sign"},
		"no sockets":             {"store: local", "store: local\nlisten: {sign: []}", "listen.sign: is empty"},
		"admin allows everybody": {"store: local", "store: local\nlisten: {admin: {allow: [{}]}}", "would match everybody"},
		"public without tls":     {"store: local", "store: local\nlisten: {public: {addr: \":8443\"}}", "listen.public: needs tls"},
		"public without addr":    {"store: local", "store: local\nlisten: {public: {insecure: true}}", "listen.public.addr: is missing"},
		"public tls and not":     {"store: local", "store: local\nlisten: {public: {addr: \":1\", insecure: true, tls: {cert_file: /a, key_file: /b}}}", "is true beside tls"},
		"public half a tls":      {"store: local", "store: local\nlisten: {public: {addr: \":1\", tls: {cert_file: /a}}}", "tls.key_file: is missing"},
		"address":                {"store: local", "store: local\nlisten: {status: {addr: 9464}}", "write it in quotes"},
		"address without port":   {"store: local", "store: local\nlisten: {status: {addr: localhost}}", "write host:port"},
		"claim without value":    {"audiences: [a]", "audiences: [a]\n    claims: {add: [{name: x}]}", "claims.add[0].value: is missing"},
		"claim value twice":      {"audiences: [a]", "audiences: [a]\n    claims: {add: [{name: x, value: {a: 1, a: 2}}]}", "value.a: appears twice"},
		"claim value no JSON":    {"audiences: [a]", "audiences: [a]\n    claims: {add: [{name: x, value: .inf}]}", "is no JSON value"},
		"claim value octal":      {"audiences: [a]", "audiences: [a]\n    claims: {add: [{name: x, value: 010}]}", "is no JSON value"},
		"credential elsewhere":   {"/etc/keyturn/seal.key", "credential:seal", "start it from a unit with LoadCredential=seal"},
		"not yaml":               {"store: local", "store: [", ":2: is not YAML: did not find expected ',' or ']': a list that begins with [, here or above"},
		"tab":                    {"    revision: 1", "\trevision: 1", ":6: is not YAML: found a tab character that violates indentation: indent with spaces"},
		"indentation":            {"    revision: 1", "   revision: 1", ":6: is not YAML: did not find expected '-' indicator: the line begins in a column"},
		"no space":               {"store: local", "store:local", ":1: is not YAML: could not find expected ':': write a colon and a plain space"},
		"landlock loud":          {"store: local", "store: local\nhardening: {landlock: \"on\"}", `hardening.landlock: "on" is unknown: use auto, required, off`},
		"port zero":              {"store: local", "store: local\nhardening: {connect_ports: [0]}", "hardening.connect_ports[0]: 0 is no port"},
		"port above 16 bits":     {"store: local", "store: local\nhardening: {connect_ports: [65536]}", "65536 is out of range"},
		"two documents":          {"store: local", "store: local\n---\nstore: vault", ":2: has more than one YAML document"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := loadText(t, edit(t, minimal, tc.old, tc.with), Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v\nwant an error with %q", err, tc.want)
			}
		})
	}
}

func TestRefusesVault(t *testing.T) {
	auth := "{method: approle, role_id_file: /etc/role, secret_id_file: /etc/secret}"
	for name, tc := range map[string]struct{ old, with, want string }{
		"no address":        {"  address: https://vault.example:8200\n", "", "vault.address: is missing"},
		"plain http":        {"https://vault.example:8200", "http://vault.example:8200", "plain http is for localhost only"},
		"address with path": {"vault.example:8200", "vault.example:8200/v1", "scheme, host and port only"},
		"socket":            {"https://vault.example:8200", "unix:///run/agent.sock", "must begin with https://"},
		"mount":             {"vault:\n", "vault:\n  mount: /keyturn/\n", "is no mount path"},
		"mount of approle":  {auth, "{method: approle, mount: /approle, role_id_file: /r, secret_id_file: /s}", `vault.auth.mount: "/approle" is no mount path`},
		"mount upwards":     {"vault:\n", "vault:\n  mount: a/../b\n", "is no mount path"},
		"no method":         {auth, "{}", "vault.auth.method: is missing"},
		"kubernetes":        {auth, "{method: kubernetes}", `"kubernetes" is not built yet`},
		"role":              {auth, "{method: kubernetes, role: x}", "vault.auth.role: not built yet"},
		"inline token":      {auth, "{method: token, token: s.1234}", "vault.auth.token: a secret never stands in this file"},
		"inline secret id":  {auth, "{method: approle, role_id_file: /r, secret_id: s}", "name a file in secret_id_file"},
		"no VAULT_TOKEN":    {auth, "{method: token}", "VAULT_TOKEN is not set"},
		"no secret id":      {", secret_id_file: /etc/secret", "", "secret_id_file: is missing"},
		"no token file":     {auth, "{method: token_file}", "token_file: is missing"},
		"unused field":      {auth, "{method: token_file, token_file: /t, role_id_file: /r}", "belongs to method approle, and the method is token_file"},
		"custody local":     {"algorithm: RS256", "algorithm: RS256, custody: local", "store vault keeps private halves as vaultkv"},
		"rotator apart, nothing to read back": {
			"state_dir:", "roles: [rotator]\nstate_dir:", "issuers[0].confirm: is missing: this daemon rotates and does not publish"},
		"confirm http":     {"publish: [", `confirm: ["http://t.example/jwks.json"], publish: [`, "plain http is for localhost only"},
		"confirm fragment": {"publish: [", `confirm: ["https://t.example/jwks.json#x"], publish: [`, "take the fragment"},
		"confirm query":    {"publish: [", `confirm: ["https://t.example/x?token=hunter2"], publish: [`, `"https://t.example/x?…": take the query (?…) out of it`},
		"confirm ?":        {"publish: [", `confirm: ["https://t.example/x?"], publish: [`, "take the query"},
		"confirm userinfo": {"publish: [", `confirm: ["https://me:hunter2@t.example/x"], publish: [`, `"…@t.example/x": take the user and password out of it`},
		"confirm twice":    {"publish: [", `confirm: ["https://t.example/x", "https://t.example/x"], publish: [`, "appears twice"},
	} {
		t.Run(name, func(t *testing.T) {
			text := edit(t, minimalVault, tc.old, tc.with)
			_, _, err := loadText(t, text, Options{})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v\nwant an error with %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "s.1234") {
				t.Errorf("the error shows the token: %v", err)
			}
		})
	}
}

// Who writes a secret where a file or a URL belongs is not helped by having it in
// a terminal and a log as well.
func TestSecretsAreNotRepeated(t *testing.T) {
	const (
		token = "hvs.CANARYCANARYCANARYCANARY"
		uuid  = "CA11A2E5-0000-4000-8000-0123456789ab"
		auth  = "auth: {method: approle, role_id_file: /etc/role, secret_id_file: /etc/secret}"
		file  = "looks like what should be in the file: a secret never stands in this file: write it to one"
	)
	for name, tc := range map[string]struct{ text, old, with, want, secret string }{
		"token":             {minimalVault, auth, "auth: {method: token_file, token_file: " + token + "}", ":4: vault.auth.token_file: " + file, "CANARY"},
		"secret id":         {minimalVault, "/etc/secret", uuid, ":4: vault.auth.secret_id_file: " + file, "CA11A2E5"},
		"role id":           {minimalVault, "/etc/role", uuid, ":4: vault.auth.role_id_file: " + file, "CA11A2E5"},
		"base64":            {minimal, "/etc/keyturn/seal.key", "CANARYCANARYCANARYCANARYCANARYCANARYCANARYC=", ":3: local.key_file: " + file, "CANARY"},
		"hexadecimal":       {minimal, "/etc/keyturn/seal.key", strings.Repeat("cafe", 16), ":3: local.key_file: " + file, "cafecafe"},
		"key of TLS":        {minimal, "store: local", "store: local\nlisten:\n  public:\n    addr: \":1\"\n    tls:\n      cert_file: /c\n      key_file: |\n        -----BEGIN PRIVATE KEY-----\n        CANARY\n", ":7: listen.public.tls.key_file: " + file, "CANARY"},
		"password of URL":   {minimal, "https://tokens", "https://me:CANARY@tokens", `:7: issuers[0].url: "…@tokens.example.com": take the user and password`, "CANARY"},
		"query of URL":      {minimal, "tokens.example.com", "tokens.example.com?key=CANARY", `:7: issuers[0].url: "https://tokens.example.com?…": take the query`, "CANARY"},
		"password of Vault": {minimalVault, "https://vault", "https://me:CANARY@vault", `:3: vault.address: "…@vault.example:8200": take the user and password`, "CANARY"},
		"query of Vault":    {minimalVault, "vault.example:8200", "vault.example:8200?token=CANARY", `:3: vault.address: "https://vault.example:8200?…": give scheme, host and port only`, "CANARY"},
	} {
		_, _, err := loadText(t, edit(t, tc.text, tc.old, tc.with), Options{})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Load = %v\nwant an error with %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), tc.secret) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
	_, _, err := loadText(t, minimalVault, Options{Environ: []string{"VAULT_ADDR=https://me:CANARY@vault.example:8200"}})
	if err == nil || !strings.HasPrefix(err.Error(), `VAULT_ADDR: vault.address: "…@vault.example:8200"`) {
		t.Errorf("VAULT_ADDR with a password: %v", err)
	}
}
