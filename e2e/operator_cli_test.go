package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// sockets are the flags that point a command at the daemon.
func (d *daemon) sockets(args ...string) []string {
	switch args[0] {
	case "sign", "jwks":
		return append(args, "--socket", d.sign)
	}
	return append(args, "--admin-socket", d.admin)
}

// ok runs a command that has to succeed, and returns its output.
func (d *daemon) ok(args ...string) string {
	d.t.Helper()
	out, errs, code := cli(d.t, nil, d.sockets(args...)...)
	if code != 0 {
		d.t.Fatalf("keyturn %v: exit code %d\n%s%s", args, code, out, errs)
	}
	return out
}

// TestCommandLine: sign, verify, jwks, keys and status against a daemon.
func TestCommandLine(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h").edit("max_token_ttl: 10s", "max_token_ttl: 2m")
	d := s.start("web")
	d.standby(10*time.Second, "web")
	token := strings.TrimSpace(d.ok("sign", "--profile", "web", "--subject", "alice", "--audience", "a", "--audience", "b", "--ttl", "119s", "--claims", `{"n":12345678901234567890,"x":[1.0]}`))
	claims := claimsOf(token)
	if fmt.Sprint(claims["aud"]) != "[a b]" || claims["exp"].(float64)-claims["iat"].(float64) != 120 {
		t.Errorf("claims %v", claims)
	}
	jwks := s.path("jwks-of-cli.json")
	must(t, os.WriteFile(jwks, []byte(d.ok("jwks", "main")), 0o600))
	published := must1(os.ReadFile(s.path("www/jwks.json")))(t)
	if d.ok("jwks") != string(published) {
		t.Error("keyturn jwks prints another set than the published one")
	}
	issuer := "http://" + d.public
	for _, set := range []string{jwks, s.path("www/jwks.json"), d.jwksURL()} {
		out, errs, code := cli(t, nil, "verify", "--jwks", set, "--issuer", issuer, "--audience", "b", token)
		if code != 0 || !strings.Contains(out, `"n": 12345678901234567890`) || !strings.Contains(out, `1.0`) {
			t.Errorf("verify with %s: exit code %d\n%s%s", set, code, out, errs)
		}
		wants(t, errs, "valid: signed with "+kidOf(t, token)+" (ES256), expires in")
	}
	for name, tc := range map[string]struct {
		args []string
		code int
		want string
	}{
		"tampered":        {[]string{"--jwks", jwks, tamper(token)}, 1, "signature"},
		"wrong audience":  {[]string{"--jwks", jwks, "--audience", "c", token}, 1, "aud"},
		"wrong issuer":    {[]string{"--jwks", jwks, "--issuer", "https://other.example", token}, 1, "iss"},
		"no token":        {[]string{"--jwks", jwks, "nonsense"}, 1, ""},
		"no set":          {[]string{"--jwks", s.path("keyturn.yaml"), token}, 1, ""},
		"no such set":     {[]string{"--jwks", s.path("absent.json"), token}, 1, "absent.json"},
		"nobody listens":  {[]string{"--jwks", "http://" + freeAddr(t) + "/jwks.json", token}, 2, "cannot be fetched"},
		"not found there": {[]string{"--jwks", issuer + "/absent", token}, 1, "a key set is 200"},
		"plain http":      {[]string{"--jwks", "http://tokens.example.com/jwks.json", token}, 64, "use https"},
		"no --jwks":       {[]string{token}, 64, "--jwks is missing"},
		"nothing":         {nil, 64, "an argument is missing: keyturn "},
	} {
		out, errs, code := cli(t, nil, append([]string{"verify"}, tc.args...)...)
		if code != tc.code || out != "" || !strings.Contains(errs, tc.want) {
			t.Errorf("verify, %s: exit code %d, want %d and %q\n%s%s", name, code, tc.code, tc.want, out, errs)
		}
	}
	cmd := exec.Command(keyturn, "verify", "--jwks", jwks, "-")
	cmd.Stdin, cmd.Env = strings.NewReader(token+"\n"), cleanEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("verify from standard input: %v\n%s", err, out)
	}
	badSigns(t, d)
}

// badSigns: what keyturn sign answers to wrong requests.
func badSigns(t *testing.T, d *daemon) {
	t.Helper()
	for want, tc := range map[string]struct {
		args []string
		code int
	}{
		"--profile is missing":              {[]string{"--subject", "alice"}, 64},
		"--ttl: \"5\" is not a duration":    {[]string{"--profile", "web", "--ttl", "5"}, 64},
		"is not in whole seconds":           {[]string{"--profile", "web", "--ttl", "1500ms"}, 64},
		"--claims is not a JSON object":     {[]string{"--profile", "web", "--claims", "[]"}, 64},
		`"/a" appears twice`:                {[]string{"--profile", "web", "--claims", `{"a":1,"a":2}`}, 64},
		"absent.json: no such file":         {[]string{"--profile", "web", "--claims", "@absent.json"}, 1},
		"forbidden: this caller may not":    {[]string{"--profile", "none"}, 1},
		"ttl_too_long":                      {[]string{"--profile", "web", "--subject", "a", "--audience", "b", "--ttl", "1h"}, 1},
		"invalid_request: subject is miss":  {[]string{"--profile", "web"}, 1},
		"claim_forbidden: keyturn alone wr": {[]string{"--profile", "web", "--subject", "a", "--audience", "b", "--claims", `{"exp":1}`}, 1},
	} {
		out, errs, code := cli(t, nil, d.sockets(append([]string{"sign"}, tc.args...)...)...)
		if code != tc.code || out != "" || !strings.Contains(errs, want) {
			t.Errorf("sign %q: exit code %d, want %d and %q\n%s%s", tc.args, code, tc.code, want, out, errs)
		}
	}
}

// TestListings: json and yaml hold the same, the table what a person needs.
func TestListings(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h")
	d := s.start("web")
	next := d.standby(10*time.Second, "web").Kid
	active := d.mustToken("web").Kid
	var status api.Issuers
	must(t, json.Unmarshal([]byte(d.ok("status", "-o", "json")), &status))
	if i := status.Issuers[0]; !status.Replica.Ready || !status.Replica.SignerReady || i.Name != "main" || len(i.Targets) != 2 || i.Lease.IsZero() {
		t.Errorf("status: %+v", status)
	}
	var keys []struct {
		api.Key
		Issuer, Ring string
		NextState    string    `json:"next_state"`
		NextAt       time.Time `json:"next_at"`
	}
	must(t, json.Unmarshal([]byte(d.ok("keys", "main", "-o", "json")), &keys))
	if len(keys) != 2 || keys[0].Kid != next || keys[0].State != "standby" || keys[0].NextState != "active" || keys[1].Kid != active || keys[1].Ring != "web" || keys[1].NextAt.IsZero() {
		t.Errorf("keys: %+v", keys)
	}
	for _, verb := range []string{"keys", "status"} {
		if words(d.ok(verb, "-o", "json")) != words(d.ok(verb, "-o", "yaml")) {
			t.Errorf("%s: json and yaml differ:\n%s\n%s", verb, d.ok(verb, "-o", "json"), d.ok(verb, "-o", "yaml"))
		}
	}
	wants(t, d.ok("keys"), "KID", "STATE", "ALGORITHM", "SIGNS UNTIL", "WAITING FOR", next, active, "standby", "ES256")
	wants(t, d.ok("status", "-o", "table"), "roles rotator, signer, publisher", "public set: ready · signer: ready", "http://"+d.public, s.path("www/jwks.json"))
	for _, args := range [][]string{{"keys", "-o", "xml"}, {"status", "more"}, {"keys", "a", "b"}} {
		if _, errs, code := cli(t, nil, d.sockets(args...)...); code != 64 {
			t.Errorf("%v: exit code %d\n%s", args, code, errs)
		}
	}
	_, errs, code := cli(t, nil, d.sockets("keys", "mian")...)
	if wants(t, errs, `there is no issuer "mian": the daemon has main`); code != 1 {
		t.Errorf("keys of an issuer that there is not: exit code %d", code)
	}
	env := []string{"KEYTURN_SOCKET=" + d.sign, "KEYTURN_ADMIN_SOCKET=" + d.admin}
	for _, args := range [][]string{{"keys"}, {"status"}, {"jwks"}, {"sign", "--profile", "web", "--subject", "a", "--audience", "b"}} {
		if out, errs, code := cli(t, env, args...); code != 0 || out == "" {
			t.Errorf("%v by KEYTURN_SOCKET: exit code %d\n%s", args, code, errs)
		}
	}
}

// words lists the names and texts of a document, without its times and
// numbers, which change between two calls.
func words(doc string) string {
	var out []string
	for _, word := range regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_-]*`).FindAllString(doc, -1) {
		if !regexp.MustCompile(`^T?[0-9TZ-]+$`).MatchString(word) {
			out = append(out, word)
		}
	}
	return strings.Join(out, "\n")
}

// TestRotate: a dry run, a refusal that says when it will be safe, a rotation.
func TestRotate(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit("@every 10s", "@every 1h").edit("consumer_cache: 2s", "consumer_cache: 10s")
	d := s.start("web")
	early, _ := d.key("web", "active")
	_, errs, code := cli(t, nil, d.sockets("rotate", "web", "--yes")...)
	if code != 1 { // refused: it is not that a remote part cannot serve
		t.Errorf("a rotation before its time: exit code %d", code)
	}
	wants(t, errs, "not_safe_yet", `ring "web"`)
	a := post(t, d.admin, "/v1/rings/web/rotate", []byte(`{"dry_run":true}`))
	if p := a.problem(t); a.status != 409 || p.Code != api.NotSafeYet {
		t.Errorf("409 with safe_at, where it is known: %s", a.body)
	}
	within(t, 5*time.Second, "a refusal with its time", func() error {
		a := post(t, d.admin, "/v1/rings/web/rotate", []byte(`{}`))
		if p := a.problem(t); p.SafeAt.IsZero() || time.Until(p.SafeAt) > 11*time.Second {
			return fmt.Errorf("%s", a.body)
		}
		return nil
	})
	next := d.standby(25*time.Second, "web").Kid
	would := d.ok("rotate", "web", "--dry-run")
	wants(t, would, next+" would sign", early.Kid+" would be retired", "its tokens verify until 20")
	if kid := d.mustToken("web").Kid; kid != early.Kid {
		t.Errorf("a dry run rotated: %s signs", kid)
	}
	if _, errs, code = cli(t, nil, d.sockets("rotate", "web")...); code != 64 {
		t.Errorf("without a terminal and --yes: exit code %d", code)
	}
	wants(t, errs, "add --yes to rotate, or --dry-run")
	wants(t, d.ok("rotate", "web", "--yes", "--reason", "drill 7"), next+" signs now", early.Kid+" is retired")
	if kid := d.mustToken("web").Kid; kid != next {
		t.Errorf("%s signs after the rotation, want %s", kid, next)
	}
	var asked, done bool
	for _, r := range records(t, s.path("audit.jsonl")) {
		asked = asked || r["event"] == "rotate_asked" && r["reason"] == "drill 7" && r["ring"] == "web"
		done = done || r["event"] == "rotate" && r["decision"] == "allow" && r["kid"] == next
	}
	if !asked || !done || d.metric("keyturn_rotations_total") != `keyturn_rotations_total{issuer="main",ring="web"} 2` {
		t.Errorf("asked %v, done %v, %s", asked, done, d.metric("keyturn_rotations_total"))
	}
	_, errs, code = cli(t, nil, d.sockets("rotate", "wep", "--yes")...)
	if wants(t, errs, "not_found: no ring wep"); code != 1 {
		t.Errorf("an unknown ring: exit code %d", code)
	}
	for body, want := range map[string]api.Code{`{"to":"x"}`: api.NotFound, `{"kid":"x"}`: api.InvalidRequest, `{"force":1}`: api.InvalidRequest} {
		if a := post(t, d.admin, "/v1/rings/web/rotate", []byte(body)); a.problem(t).Code != want {
			t.Errorf("%s: %s", body, a.body)
		}
	}
}

// TestNobodyThere: without a daemon every command says so, with exit code 2; but
// what is no socket never will be one.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path("dead.sock")})
	must(t, err)
	dead.SetUnlinkOnClose(false)
	must(t, dead.Close())
	s.write("file.sock", "", 0o600)
	for socket, want := range map[string]string{
		"absent.sock": "there is no socket " + s.path("absent.sock") + ": is the daemon running?",
		"dead.sock":   "nobody listens at " + s.path("dead.sock") + ": the daemon has stopped",
		"file.sock":   s.path("file.sock") + " is no socket: --",
	} {
		d, wantCode := &daemon{sign: s.path(socket), admin: s.path(socket)}, 2
		if socket == "file.sock" {
			wantCode = 64
		}
		for _, args := range [][]string{{"sign", "--profile", "web"}, {"jwks"}, {"keys"}, {"status"}, {"rotate", "web", "--yes"}, {"rotate", "web", "--dry-run"}} {
			out, errs, code := cli(t, nil, d.sockets(args...)...)
			if code != wantCode || out != "" || !strings.Contains(errs, want) {
				t.Errorf("%s, %v: exit code %d\n%s%s", socket, args, code, out, errs)
			}
			if !strings.Contains(errs, "_SOCKET names another") {
				t.Errorf("%s, %v: it does not say how to name another: %s", socket, args, errs)
			}
		}
	}
}

// TestOther: version, completion, help, and what there is not.
func TestOther(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		code int
		want string // in either output
	}{
		{[]string{"version"}, 0, "keyturn devel (go1."},
		{[]string{"completion", "bash"}, 0, "bash completion V2 for keyturn"},
		{[]string{"completion", "zsh"}, 0, "#compdef keyturn"},
		{[]string{"completion", "fish"}, 0, "fish completion for keyturn"},
		{[]string{"__complete", "con"}, 0, "config"},
		{[]string{"help", "rotate"}, 0, "--dry-run"},
		{[]string{"--help"}, 0, "keeps their private halves in Vault"},
		{nil, 0, "Usage:"},
		{[]string{"rotat"}, 64, `there is no command "rotat": is it rotate?`},
		{[]string{"revok", "kid"}, 64, `there is no command "revok": is it revoke?`},
		{[]string{"config", "chekc"}, 64, "is it check?"},
		{[]string{"version", "more"}, 64, "more"},
		{[]string{"sign", "--color"}, 64, "keyturn sign --help tells more"},
	} {
		out, errs, code := cli(t, nil, tc.args...)
		if code != tc.code || !strings.Contains(out+errs, tc.want) || code == 0 && errs != "" && tc.args[0] != "__complete" {
			t.Errorf("keyturn %q: exit code %d, want %d and %q\n%s%s", tc.args, code, tc.code, tc.want, out, errs)
		}
	}
}
