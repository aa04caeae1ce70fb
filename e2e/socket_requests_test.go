package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// post sends bytes to a socket and returns all that came back.
func post(t *testing.T, socket, path string, body []byte) answer {
	t.Helper()
	client := overUnix(socket)
	// With Connection: close the server hangs up on what it has not read.
	client.Transport.(*http.Transport).DisableKeepAlives = false
	defer client.CloseIdleConnections()
	resp, err := client.Post("http://keyturn"+path, "", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s with %d bytes: %v", path, len(body), err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return answer{resp.StatusCode, resp.Header, string(text)}
}

// problem reads an RFC 9457 document, and wants it to be one.
func (a answer) problem(t *testing.T) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.header.Get("Content-Type") != api.ProblemType || p.Status != a.status || p.Type == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("no problem document: %d %v %s", a.status, a.header, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("a cache may keep %s", a.body)
	}
	if wait := a.header.Get("Retry-After"); (wait != "") != (a.status == 503 || a.status == 429) {
		t.Errorf("status %d with Retry-After %q", a.status, wait)
	}
	return p
}

// good is a request that the site's profile allows, with more members.
func good(members string) string {
	return `{"profile":"web","subject":"alice","audience":"demo"` + members + `}`
}

type badRequest struct {
	name, body string
	status     int
	code       api.Code
	detail     string
}

func badRequests() []badRequest {
	const invalid = api.InvalidRequest
	list := []badRequest{
		{"nothing", ``, 400, invalid, "empty document"},
		{"no JSON", `nonsense`, 400, invalid, "not valid JSON at byte 1"},
		{"cut off", `{"profile":"web"`, 400, invalid, "not valid JSON"},
		{"an array", `[]`, 400, invalid, "cannot be an array"},
		{"trailing data", good("") + good(""), 400, invalid, "data after the JSON value"},
		{"trailing comma", good(","), 400, invalid, "not valid JSON"},
		{"member twice", good(`,"subject":"bob"`), 400, invalid, `"/subject" appears twice`},
		{"claim twice", good(`,"claims":{"a":1,"a":2}`), 400, invalid, `"/claims/a" appears twice`},
		{"member in another case", good(`,"Subject":"bob"`), 400, invalid, `unknown member "/Subject"`},
		{"claims that differ in case", good(`,"claims":{"scope":"a","SCOPE":"b"}`), 400, invalid, "differ in case only"},
		{"case twin of exp", good(`,"claims":{"EXP":9999999999}`), 400, api.ClaimForbidden, "could be taken for one of them"},
		{"Unicode twin of iss", good(`,"claims":{"iſs":"x"}`), 400, api.ClaimForbidden, "could be taken for one of them"},
		{"unknown member", good(`,"colour":"red"`), 400, invalid, `unknown member "/colour"`},
		{"bad UTF-8", good(",\"claims\":{\"a\":\"\xff\"}"), 400, invalid, "UTF-8"},
		{"half a surrogate", good(`,"claims":{"a":"\ud800"}`), 400, invalid, "surrogate"},
		{"deep", good(`,"claims":{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + `}`), 400, invalid, "deeper than 16"},
		{"very deep", good(`,"claims":{"a":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`), 400, invalid, "deeper than"},
		{"65 KiB", good(`,"claims":{"a":"` + strings.Repeat("x", 65<<10) + `"}`), 413, api.TooLarge, "more than 65536 bytes"},
		{"no profile", `{"subject":"alice"}`, 400, invalid, "profile is missing"},
		{"another's profile", `{"profile":"foreign","subject":"alice","audience":"demo"}`, 403, api.Forbidden, "may not use this profile"},
		{"no such profile", `{"profile":"none","subject":"alice","audience":"demo"}`, 403, api.Forbidden, "may not use this profile"},
		{"subject outside of the pattern", `{"profile":"web","subject":"Alice2","audience":"demo"}`, 400, invalid, "does not match the profile's pattern"},
		{"subject with a line more", `{"profile":"web","subject":"alice\n","audience":"demo"}`, 400, invalid, "pattern"},
		{"no subject", `{"profile":"web","audience":"demo"}`, 400, invalid, "subject is missing"},
		{"no audience", `{"profile":"web","subject":"alice"}`, 400, invalid, "audience is missing"},
		{"empty audience", `{"profile":"web","subject":"alice","audience":""}`, 400, invalid, "audience is empty"},
		{"audience twice", `{"profile":"web","subject":"alice","audience":["a","a"]}`, 400, invalid, "twice"},
		{"audience of another kind", `{"profile":"web","subject":"alice","audience":7}`, 400, invalid, "audience"},
		{"ttl too long", good(`,"ttl_seconds":11`), 400, api.TTLTooLong, "allows 10 at most"},
		{"ttl beyond all", good(`,"ttl_seconds":9223372036854775807`), 400, api.TTLTooLong, "allows 10 at most"},
		{"ttl zero", good(`,"ttl_seconds":0`), 400, invalid, "at least 1"},
		{"ttl negative", good(`,"ttl_seconds":-1`), 400, invalid, "at least 1"},
		{"ttl with a fraction", good(`,"ttl_seconds":1.5`), 400, invalid, "ttl_seconds"},
		{"ttl as text", good(`,"ttl_seconds":"5"`), 400, invalid, "ttl_seconds"},
		{"fixed subject", `{"profile":"strict","subject":"bob"}`, 400, invalid, "subject is set by the profile"},
		{"audience of the profile's", `{"profile":"strict","audience":"other"}`, 400, invalid, "not one of the profile's"},
		{"claim that is not allowed", `{"profile":"strict","claims":{"tenant":"a","scope":"b"}}`, 400, api.ClaimForbidden, `does not allow the claim "scope"`},
		{"claim that the profile adds", `{"profile":"strict","claims":{"tenant":"a","env":"b"}}`, 400, api.ClaimForbidden, `the profile itself sets the claim "env"`},
		{"claim without a name", good(`,"claims":{"":1}`), 400, api.ClaimForbidden, "a claim needs a name"},
		{"case twin of an allowed claim", `{"profile":"strict","claims":{"Tenant":"a"}}`, 400, api.ClaimForbidden, `"Tenant"`},
		{"required claim", `{"profile":"strict"}`, 400, invalid, `requires the claim "tenant"`},
	}
	for _, name := range []string{"alg", "kid", "typ", "iss", "sub", "aud", "exp", "nbf", "iat", "jti"} {
		list = append(list,
			badRequest{"claim " + name, good(`,"claims":{"` + name + `":"x"}`), 400, api.ClaimForbidden, "keyturn alone writes"},
			badRequest{"member " + name, good(`,"` + name + `":"x"`), 400, invalid, `unknown member "/` + name + `"`})
	}
	return list
}

// strictSite has more profiles: one that leaves a caller no choice, and one of
// somebody else.
func strictSite(t *testing.T) *site {
	return newSite(t).edit("audit: {", `  - name: strict
    ring: web
    allow: [{socket: default}]
    subject: {fixed: svc}
    audiences: [api]
    claims: {allow: [tenant], require: [tenant], add: [{name: env, value: prod}]}
  - {name: foreign, ring: web, allow: [{uid: 4242}], subject: {pattern: ".+"}, audiences: ["*"]}
audit: {`)
}

// TestBadRequests: each is refused with its status and code, says what is
// wrong, costs nothing and is audited; the same in a batch.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	s := strictSite(t)
	d := s.start("web")
	signed := len(records(t, s.path("audit.jsonl")))
	for _, tc := range badRequests() {
		a := post(t, d.sign, "/v1/sign", []byte(tc.body))
		p := a.problem(t)
		if a.status != tc.status || p.Code != tc.code || !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("%s: %d %s %q, want %d %s %q", tc.name, a.status, p.Code, p.Detail, tc.status, tc.code, tc.detail)
		}
	}
	for _, r := range records(t, s.path("audit.jsonl"))[signed:] {
		if r["decision"] != "deny" || r["jti"] != nil || r["code"] == nil || r["reason"] == nil {
			t.Errorf("audit record %v", r)
		}
	}
	batched(t, d)
	a := post(t, d.sign, "/v1/sign", []byte(`{"profile":"strict","claims":{"tenant":"acme"}}`))
	var tok api.SignResponse
	must(t, json.Unmarshal([]byte(a.body), &tok))
	if c := claimsOf(tok.Token); c["sub"] != "svc" || fmt.Sprint(c["aud"]) != "[api]" || c["tenant"] != "acme" || c["env"] != "prod" {
		t.Errorf("the strict profile signs %v", c)
	}
}

// batched sends the requests that one may send as entries of a batch, good
// ones between them.
func batched(t *testing.T, d *daemon) {
	t.Helper()
	var entries []string
	var want []badRequest
	for _, tc := range badRequests() {
		if tc.code != api.TooLarge && json.Valid([]byte(tc.body)) && !strings.Contains(tc.detail, "twice") && !strings.Contains(tc.detail, "deeper") && !strings.Contains(tc.detail, "surrogate") && !strings.Contains(tc.detail, "UTF-8") {
			entries, want = append(entries, tc.body, good("")), append(want, tc, badRequest{})
		}
	}
	if len(want) < 60 {
		t.Errorf("only %d entries", len(want))
	}
	a := post(t, d.sign, "/v1/sign/batch", []byte(`{"requests":[`+strings.Join(entries, ",")+`]}`))
	var out api.BatchResponse
	must(t, json.Unmarshal([]byte(a.body), &out))
	if a.status != 200 || len(out.Results) != len(want) {
		t.Fatalf("batch: %d, %d results", a.status, len(out.Results))
	}
	for i, r := range out.Results {
		switch {
		case want[i].code == "" && (r.Error != nil || r.SignResponse == nil || r.Token == ""):
			t.Errorf("good entry %d: %+v", i, r.Error)
		case want[i].code != "" && (r.SignResponse != nil || r.Error == nil || r.Error.Code != want[i].code || r.Error.Status != want[i].status):
			t.Errorf("%s in a batch: %+v", want[i].name, r.Error)
		}
	}
	for _, tc := range []badRequest{
		{"no requests", `{}`, 400, api.InvalidRequest, "requests is missing"},
		{"too many", `{"requests":[` + strings.TrimSuffix(strings.Repeat("{},", api.MaxBatch+1), ",") + `]}`, 413, api.TooLarge, "at most 1000"},
		{"an entry with a member twice", `{"requests":[{"profile":"web","profile":"web"}]}`, 400, api.InvalidRequest, "twice"},
	} {
		a := post(t, d.sign, "/v1/sign/batch", []byte(tc.body))
		if p := a.problem(t); a.status != tc.status || p.Code != tc.code || !strings.Contains(p.Detail, tc.detail) {
			t.Errorf("batch, %s: %d %+v", tc.name, a.status, p)
		}
	}
}

// TestForeignProfileIsNoOracle: byte for byte, who may not use a profile is
// answered as if there were none.
func TestForeignProfileIsNoOracle(t *testing.T) {
	t.Parallel()
	s := strictSite(t)
	d := s.start("web")
	raw := func(profile string) string {
		conn, err := net.Dial("unix", d.sign)
		must(t, err)
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		body := fmt.Sprintf(`{"profile":%q,"subject":"alice","audience":"demo"}`, profile)
		_, err = fmt.Fprintf(conn, "POST /v1/sign HTTP/1.1\r\nHost: keyturn\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		must(t, err)
		all, err := io.ReadAll(conn)
		must(t, err)
		head, rest, _ := strings.Cut(string(all), "\r\nDate: ")
		_, rest, _ = strings.Cut(rest, "\r\n") // all but the date
		return head + "\r\n" + rest
	}
	foreign, none := raw("foreign"), raw("nothere")
	if foreign != none || !strings.HasPrefix(foreign, "HTTP/1.1 403 ") {
		t.Errorf("a profile of somebody else:\n%s\nno profile:\n%s", foreign, none)
	}
	list := records(t, s.path("audit.jsonl"))
	for i, want := range []string{"no allow item of the profile matches", "there is no such profile"} {
		if r := list[len(list)-2+i]; !strings.Contains(fmt.Sprint(r["reason"]), want) || r["code"] != "forbidden" {
			t.Errorf("audit record %v, want %q: the operator may know", r, want)
		}
	}
	resp, err := overUnix(d.sign).Get("http://keyturn/v1/profiles")
	must(t, err)
	defer resp.Body.Close()
	var mine api.Profiles
	must(t, json.NewDecoder(resp.Body).Decode(&mine))
	if len(mine.Profiles) != 2 || mine.Profiles[0].Name != "strict" || mine.Profiles[1].Name != "web" {
		t.Errorf("profiles of this caller: %+v", mine)
	}
}

// TestHugeRequests: ten megabytes, announced or not, are refused as soon as
// that can be known, and are not kept in memory.
func TestHugeRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := startBinary(t, plain, s.daemon(), nil, "run", "--config", s.save())
	d.canSign(30*time.Second, "web")
	const huge = 10 << 20
	for path, most := range map[string]int{"/v1/sign": api.MaxSignBytes, "/v1/sign/batch": api.MaxBatchBytes} {
		first := strings.Repeat("[", most+1)
		for name, request := range map[string]string{
			"announced": fmt.Sprintf("Content-Length: %d\r\n\r\n[", huge),
			"chunked":   fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s", huge, first),
		} {
			conn, err := net.Dial("unix", d.sign)
			must(t, err)
			must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: keyturn\r\n%s", path, request)
			must(t, err)
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s, %s: %v", path, name, err)
			}
			text, _ := io.ReadAll(resp.Body) // it may be cut off: the request is not finished
			_ = conn.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(string(text), string(api.TooLarge)) {
				t.Errorf("%s, %s: %d %s", path, name, resp.StatusCode, text)
			}
		}
		for range 5 { // and those who go on sending, whatever becomes of it
			if resp, err := overUnix(d.sign).Post("http://keyturn"+path, "", strings.NewReader(strings.Repeat("[", huge))); err == nil {
				_ = resp.Body.Close()
			}
		}
	}
	d.mustToken("web")
	rss := residentMB(t, d)
	if rss > 100 {
		t.Errorf("%d MB resident after huge requests", rss)
	}
	t.Logf("%d MB resident after huge requests", rss)
}

// residentMB is what the daemon has in memory, by its own metrics.
func residentMB(t *testing.T, d *daemon) int {
	t.Helper()
	_, value, _ := strings.Cut(d.metric("process_resident_memory_bytes"), " ")
	bytes, err := strconv.ParseFloat(value, 64)
	must(t, err)
	return int(bytes / (1 << 20))
}
