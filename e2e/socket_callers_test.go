package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// someone is a user of the machine.
type someone struct {
	uid, gid int
	groups   []int // supplementary
}

func (u someone) String() string {
	return fmt.Sprintf("uid %d, gid %d, groups %v", u.uid, u.gid, u.groups)
}

// does runs a command as that user; it needs root.
func (u someone) does(t *testing.T, command ...string) (stdout, stderr string, code int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test runs commands as other users: run it as root")
	}
	args := []string{"--reuid", strconv.Itoa(u.uid), "--regid", strconv.Itoa(u.gid), "--inh-caps=-all", "--no-new-privs"}
	if len(u.groups) == 0 {
		args = append(args, "--clear-groups")
	} else {
		args = append(args, "--groups", strings.Trim(strings.ReplaceAll(fmt.Sprint(u.groups), " ", ","), "[]"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "setpriv", append(args, command...)...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = &o, &e, cleanEnv(), "/"
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// curl asks a socket as that user; status 0 is a socket that it cannot reach.
func (u someone) curl(t *testing.T, socket, path string, more ...string) (int, string) {
	t.Helper()
	out, errs, code := u.does(t, append([]string{"curl", "-sS", "-m", "10", "-w", "\n%{http_code}", "--unix-socket", socket, "http://keyturn" + path}, more...)...)
	if code == 7 { // could not connect
		return 0, errs
	}
	last := strings.LastIndex(out, "\n")
	status, err := strconv.Atoi(out[last+1:])
	if err != nil || code != 0 {
		t.Fatalf("%s: curl %s: exit code %d, %q %s", u, path, code, out, errs)
	}
	return status, out[:last]
}

// callersSite has a socket for everybody and one for a group, in a folder that
// the daemon makes, and profiles for users and groups.
func callersSite(t *testing.T) *site {
	s := newSite(t).edit(`mode: "0660"}]`, `mode: "0666"}, {name: apps, path: apps/apps.sock, mode: "0660", group: "4300"}]`).
		edit("@every 10s", "@every 1h") // no rotation but those that are asked for
	head, _, _ := strings.Cut(s.text, "profiles:\n")
	s.text = head + "profiles:\n"
	for name, allow := range map[string]string{
		"root": "{uid: 0}", "one": "{uid: 4201}", "group": "{gid: 4300}", "both": "{uid: 4201, gid: 4300}", "apps": "{socket: apps}", "either": "{uid: 4202}, {gid: 4300}",
	} {
		s.text += fmt.Sprintf("  - {name: %s, ring: web, allow: [%s], subject: {from_peer: \"uid:{uid} gid:{gid}\"}, audiences: [demo]}\n", name, allow)
	}
	s.text += "audit: {file: audit.jsonl}\n"
	return s
}

// startFor is start for a site on which a test's own caller has a profile
// without a choice. The umask is that of the systemd unit.
func (s *site) startFor(profile string) *daemon {
	s.t.Helper()
	d := startBinary(s.t, "/bin/sh", s.daemon(), nil, "-c", `umask 077; exec "$@"`, "sh", keyturn, "run", "--config", s.save())
	within(s.t, 30*time.Second, "first token", func() error {
		_, err := d.token(api.SignRequest{Profile: profile})
		return err
	})
	return d
}

// TestCallers: real users meet the profiles of others. The uid and the groups,
// primary or supplementary, decide, and the socket; the audit log has them.
func TestCallers(t *testing.T) {
	t.Parallel()
	s := callersSite(t)
	d := s.startFor("root")
	one, two := someone{4201, 4201, nil}, someone{4202, 4202, nil}
	primary, supplementary := someone{4203, 4300, nil}, someone{4203, 4203, []int{4299, 4300}}
	oneInGroup := someone{4201, 4201, []int{4300}}
	const granted, forbidden, closed = 200, 403, 0
	for _, tc := range []struct {
		who     someone
		socket  string
		profile string
		status  int
	}{
		{one, "sign.sock", "one", granted}, {one, "sign.sock", "root", forbidden}, {one, "sign.sock", "group", forbidden},
		{one, "sign.sock", "both", forbidden}, {one, "sign.sock", "nothere", forbidden}, {one, "apps/apps.sock", "one", closed},
		{two, "sign.sock", "one", forbidden}, {two, "sign.sock", "either", granted},
		{primary, "sign.sock", "group", granted}, {primary, "sign.sock", "one", forbidden}, {primary, "sign.sock", "both", forbidden},
		{primary, "sign.sock", "apps", forbidden}, {primary, "apps/apps.sock", "apps", granted},
		{supplementary, "sign.sock", "group", granted}, {supplementary, "sign.sock", "either", granted}, {supplementary, "apps/apps.sock", "apps", granted},
		{oneInGroup, "sign.sock", "both", granted}, {oneInGroup, "apps/apps.sock", "both", granted}, {oneInGroup, "apps/apps.sock", "root", forbidden},
	} {
		before := len(records(t, s.path("audit.jsonl")))
		status, body := tc.who.curl(t, s.path(tc.socket), "/v1/sign", "-d", `{"profile":"`+tc.profile+`"}`)
		if status != tc.status {
			t.Errorf("%s on %s for profile %s: %d %s, want %d", tc.who, tc.socket, tc.profile, status, body, tc.status)
			continue
		}
		list := records(t, s.path("audit.jsonl"))[before:]
		if status == closed {
			continue
		}
		if len(list) != 1 {
			t.Fatalf("%d audit records of one request", len(list))
		}
		audited(t, tc.who, tc.socket, status, body, list[0])
	}
	if status, body := one.curl(t, d.sign, "/v1/profiles"); status != 200 || !strings.Contains(body, `"name":"one"`) || strings.Count(body, `"name"`) != 1 {
		t.Errorf("the profiles of %s: %d %s", one, status, body)
	}
}

// audited compares the record of a decision with who asked, and a token with
// its record.
func audited(t *testing.T, who someone, socket string, status int, body string, r map[string]any) {
	t.Helper()
	name := map[string]string{"sign.sock": "default", "apps/apps.sock": "apps"}[socket]
	if r["uid"] != float64(who.uid) || r["gid"] != float64(who.gid) || r["socket"] != name || r["pid"].(float64) < 2 {
		t.Errorf("audit record %v of %s on %s", r, who, socket)
	}
	if status != 200 {
		if r["decision"] != "deny" || r["code"] != "forbidden" || r["jti"] != nil {
			t.Errorf("audit record %v of status %d", r, status)
		}
		return
	}
	var tok api.SignResponse
	must(t, json.Unmarshal([]byte(body), &tok))
	claims := claimsOf(tok.Token)
	want := fmt.Sprintf("uid:%d gid:%d", who.uid, who.gid)
	if r["decision"] != "allow" || r["jti"] != claims["jti"] || r["kid"] != tok.Kid || r["subject"] != want || claims["sub"] != want {
		t.Errorf("audit record %v of claims %v, want subject %s", r, claims, want)
	}
}

// TestAdminSocketIsForOperators: the mode keeps others out, and where the mode
// lets them in, listen.admin.allow does.
func TestAdminSocketIsForOperators(t *testing.T) {
	t.Parallel()
	one, operator := someone{4201, 4201, nil}, someone{4205, 4205, []int{4310}}
	s := callersSite(t)
	d := s.startFor("root")
	if status, said := one.curl(t, d.admin, "/v1/issuers"); status != 0 {
		t.Errorf("admin socket of mode 0600: %d %s", status, said)
	}
	d.stop()

	s.edit("admin: {path: admin.sock}", `admin: {path: admin.sock, mode: "0666", allow: [{uid: 0}, {gid: 4310}]}`)
	d = s.startFor("root")
	kid := func() string { k, _ := d.key("web", "active"); return k.Kid }
	before := kid()
	for _, more := range [][]string{{"/v1/issuers"}, {"/v1/rings/web/rotate", "-d", `{}`}, {"/v1/rings/web/rotate", "-d", `{"dry_run":true}`}, {"/v1/nothing"}} {
		status, body := one.curl(t, d.admin, more[0], more[1:]...)
		if status != 403 || !strings.Contains(body, `"code":"forbidden"`) || strings.Contains(body, before) {
			t.Errorf("%s at %v: %d %s", one, more, status, body)
		}
	}
	if after := kid(); after != before {
		t.Error("who is refused rotated the ring")
	}
	denied := 0
	for _, r := range records(t, s.path("audit.jsonl")) {
		if r["socket"] == "admin" && r["uid"] == float64(one.uid) && r["gid"] == float64(one.gid) && r["decision"] == "deny" && r["code"] == "forbidden" {
			denied++
		}
	}
	if denied != 4 {
		t.Errorf("%d refusals are in the audit log, want 4", denied)
	}
	if status, body := operator.curl(t, d.admin, "/v1/issuers"); status != 200 || !strings.Contains(body, before) {
		t.Errorf("%s: %d %s", operator, status, body)
	}
}

// TestCommandLineOfOthers: a user without a way in is told which group has one.
func TestCommandLineOfOthers(t *testing.T) {
	t.Parallel()
	s := callersSite(t)
	s.startFor("root")
	binary, err := os.ReadFile(plain)
	must(t, err)
	must(t, os.WriteFile(s.path("keyturn"), binary, 0o755))
	one, inGroup := someone{4201, 4201, nil}, someone{4203, 4203, []int{4300}}
	out, errs, code := inGroup.does(t, s.path("keyturn"), "sign", "--profile", "apps", "--socket", s.path("apps/apps.sock"))
	if code != 0 || strings.Count(out, ".") != 2 {
		t.Errorf("%s: exit code %d, %s%s", inGroup, code, out, errs)
	}
	out, errs, code = one.does(t, s.path("keyturn"), "sign", "--profile", "apps", "--socket", s.path("apps/apps.sock"))
	if code != 1 || out != "" {
		t.Errorf("%s: exit code %d, %s", one, code, out)
	}
	wants(t, errs, "permission denied at "+s.path("apps/apps.sock"), "belongs to group 4300", "usermod -aG")
	_, errs, code = one.does(t, s.path("keyturn"), "keys", "--admin-socket", s.path("admin.sock"))
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	wants(t, errs, "permission denied at "+s.path("admin.sock"), "open to its owner (uid 0) alone")
	_, errs, code = one.does(t, s.path("keyturn"), "sign", "--profile", "root", "--socket", s.path("sign.sock"))
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	wants(t, errs, "forbidden: this caller may not use this profile")
}
