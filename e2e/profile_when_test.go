package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
)

// TestConditions: real users meet conditions over claims, over themselves and
// over what they ask for, alone and in a batch; the audit log says why not.
func TestConditions(t *testing.T) {
	t.Parallel()
	s := newSite(t).edit(`mode: "0660"}]`, `mode: "0666"}]`).edit("@every 10s", "@every 1h")
	head, _, _ := strings.Cut(s.text, "profiles:\n")
	s.text = head + `profiles:
  - {name: root, ring: web, allow: [{uid: 0}], subject: {fixed: root}, audiences: [demo]}
  - name: tenants
    ring: web
    allow: [{socket: default}]
    subject: {pattern: "user-[0-9]+"}
    audiences: [orders, stock]
    claims: {allow: [tenant, n]}
    ttl: {default: 2s, max: 10s}
    when: |
      claims.tenant in ['acme', 'globex'] &&
      (peer.uid == 4201 || 4300 in peer.groups && request.ttl_seconds <= 5) &&
      !('stock' in request.audience) && (!has(claims.n) || claims.n == 9007199254740993)
audit: {file: audit.jsonl}
`
	d := s.startFor("root")
	one, two, grouped := someone{4201, 4201, nil}, someone{4202, 4202, nil}, someone{4203, 4203, []int{4299, 4300}}
	const isFalse = "the condition of the profile is false"
	for _, tc := range []struct {
		who    someone
		asked  string
		reason string // "" is granted
	}{
		{one, `"claims":{"tenant":"acme"},"ttl_seconds":10`, ""},
		{one, `"claims":{"tenant":"initech"}`, isFalse},
		{one, `"claims":{"n":9007199254740993}`, "the condition of the profile failed: no such key: tenant"},
		{one, `"claims":{"tenant":{"acme":1}}`, isFalse},
		{one, `"claims":{"tenant":"acme","n":9007199254740993}`, ""},
		{one, `"claims":{"tenant":"acme","n":9007199254740992.0}`, isFalse},
		{two, `"claims":{"tenant":"acme"}`, isFalse},
		{grouped, `"claims":{"tenant":"globex"}`, ""},
		{grouped, `"claims":{"tenant":"globex"},"ttl_seconds":6`, isFalse},
	} {
		before := len(records(t, s.path("audit.jsonl")))
		status, body := tc.who.curl(t, d.sign, "/v1/sign", "-d", `{"profile":"tenants","subject":"user-7","audience":"orders",`+tc.asked+`}`)
		r := records(t, s.path("audit.jsonl"))[before]
		if want := map[bool]int{true: 200, false: 403}[tc.reason == ""]; status != want {
			t.Errorf("%s, %s: %d %s", tc.who, tc.asked, status, body)
			continue
		}
		if reason, _ := r["reason"].(string); reason != tc.reason || r["uid"] != float64(tc.who.uid) || r["profile"] != "tenants" {
			t.Errorf("%s, %s: audit record %v, want reason %q", tc.who, tc.asked, r, tc.reason)
		}
		if status == 403 && (!strings.Contains(body, `"code":"forbidden"`) || !strings.Contains(body, "the condition of this profile does not allow this request") || strings.Contains(body, "no such key")) {
			t.Errorf("%s, %s: %s", tc.who, tc.asked, body)
		}
	}
	status, body := one.curl(t, d.sign, "/v1/sign/batch", "-d", `{"requests":[
		{"profile":"tenants","subject":"user-1","audience":"orders","claims":{"tenant":"acme"}},
		{"profile":"tenants","subject":"user-1","audience":["orders","stock"],"claims":{"tenant":"acme"}},
		{"profile":"tenants","subject":"user-2","audience":"orders","claims":{"tenant":"globex"}}]}`)
	var batch api.BatchResponse
	must(t, json.Unmarshal([]byte(body), &batch))
	if len(batch.Results) != 3 || batch.Results[0].Error != nil || batch.Results[2].Error != nil || batch.Results[1].Error == nil || batch.Results[1].Error.Code != api.Forbidden {
		t.Errorf("batch: %d %s", status, body)
	}
	// Who may use a profile sees it, whatever its condition.
	if _, body := two.curl(t, d.sign, "/v1/profiles"); !strings.Contains(body, `"name":"tenants"`) {
		t.Errorf("profiles of %s: %s", two, body)
	}
}

// TestConditionFaults: `config check` and `run` tell all that is wrong with
// conditions, and with the rest of the file, at once, each with its line.
func TestConditionFaults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	head, _, _ := strings.Cut(s.text, "profiles:\n")
	s.text = head + `profiles:
  - name: one
    ring: web
    allow: [{socket: default}]
    subject: {fixed: me}
    audiences: [a]
    when: "peer.uidd == 1 || request.ttl == '5m'"
  - name: two
    ring: web
    allow: [{socket: default}]
    subject: {fixed: me}
    audiences: [a]
    claims: {allow: [tenant]}
    ttl: {default: 10}
    when: |
      claims.tenant == 'x' &&
      claims.tennant == 'y'
  - name: three
    ring: web
    allow: [{uid: 65534}]
    subject: {pattern: "("}
    audiences: [a]
    typ: at+jwt
    when: "claims.exists(a, claims.exists(b, claims.exists(c, a == b)))"
    rate: {per_second: 0}
  - {name: good, ring: web, allow: [{uid: 0}], subject: {fixed: me}, audiences: [a], when: "peer.uid == 0", rate: {per_second: 5, burst: 9}}
audit: {file: audit.jsonl}
`
	line := func(text string) string {
		at := strings.Index(s.text, text)
		if at < 0 {
			t.Fatalf("no %q", text)
		}
		return fmt.Sprintf("keyturn.yaml:%d: ", 1+strings.Count(s.text[:at], "\n"))
	}
	file := s.save()
	for _, command := range [][]string{{"config", "check"}, {"run"}} {
		_, said, code := cli(t, nil, append(command, "--config", file)...)
		if code != 1 {
			t.Errorf("%s: exit code %d", command, code)
		}
		wants(t, said, "9 faults in the configuration",
			line(`when: "peer.uidd`)+"profiles[0].when: column 5: there is no peer.uidd: peer has gid, groups, socket, uid",
			line(`when: "peer.uidd`)+"profiles[0].when: column 26: there is no request.ttl: request has audience, profile, subject, ttl_seconds",
			line("ttl: {default: 10}")+"profiles[1].ttl.default: 10 has no unit",
			line("when: |")+"profiles[1].when: line 2, column 7: claims.tennant: no token of this profile carries it",
			line("allow: [{uid: 65534}]")+"profiles[2].allow[0]: uid 65534",
			line(`pattern: "("`)+"profiles[2].subject.pattern: ",
			line("typ: at+jwt")+"profiles[2].typ: RFC 9068 §2.2 requires the claim client_id",
			line("claims.exists(a")+"profiles[2].when: it could cost",
			line("per_second: 0")+"profiles[2].rate.per_second: is 0",
		)
	}
	shown, _, code := cli(t, nil, "config", "show", "--config", func() string {
		good := s.text[strings.Index(s.text, "  - {name: good"):]
		s.text = head + "profiles:\n" + good
		return s.save()
	}())
	if code != 0 {
		t.Error(errors.New(shown))
	}
	wants(t, shown, "when: peer.uid == 0", "rate: {per_second: 5, burst: 9}")
}
