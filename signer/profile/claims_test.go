package profile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/request"
)

// judged is what a profile says to a request, nil where it grants it.
func judged(t *testing.T, cfg Config, body string) *api.Problem {
	t.Helper()
	set, err := Compile([]Config{cfg}, known)
	if err != nil {
		t.Fatal(err)
	}
	e := request.Parse([]byte(body))
	if e.Problem != nil {
		t.Fatal(e.Problem)
	}
	_, prob := set[e.Profile].Judge(&e.Request, unixsock.Peer{UID: 1000, GID: 1000})
	return prob
}

// A profile of access tokens keeps what RFC 9068 and those that it points to
// say of a claim, whoever gives it.
func TestAccessTokenClaims(t *testing.T) {
	p := anybody("orders", "web")
	p.Type, p.Claims = "at+jwt", Claims{Allow: []string{AnyName}, Require: []string{"client_id"}}
	judge := func(claims string) *api.Problem {
		return judged(t, p, `{"profile":"orders","subject":"user-1","claims":`+claims+`}`)
	}
	for _, tc := range []struct{ name, value, want string }{
		{"scope", `"read write"`, ""}, {"scope", `["read"]`, "a string"}, {"scope", `""`, "a string"},
		{"auth_time", `1700000000`, ""}, {"auth_time", ` 1700000000`, ""}, {"auth_time", `"2027-01-01"`, "a time in seconds"}, {"auth_time", `-1`, "a time in seconds"},
		{"acr", `"urn:x"`, ""}, {"acr", `1`, "a string"},
		{"amr", `["pwd","otp"]`, ""}, {"amr", `"pwd"`, "a list of strings"}, {"amr", `[1]`, "a list of strings"}, {"amr", `[null]`, "a list of strings"}, {"amr", `null`, "a list of strings"},
		{"groups", `["a"]`, ""}, {"groups", `"a"`, "a list"}, {"roles", `{"a":1}`, "a list"}, {"entitlements", `[]`, ""}, {"entitlements", `null`, "a list"},
		{"other", `{"a":1}`, ""},
	} {
		prob := judge(`{"client_id":"app","` + tc.name + `":` + tc.value + `}`)
		if tc.want == "" && prob != nil || tc.want != "" && (prob == nil || prob.Code != api.InvalidRequest || !strings.Contains(prob.Detail, "claim "+tc.name+": it has to be "+tc.want)) {
			t.Errorf("%s %s: %v", tc.name, tc.value, prob)
		}
		given := anybody("orders", "web")
		given.Type, given.Claims = "application/at+jwt", Claims{Add: []request.Claim{{Name: "client_id", Value: json.RawMessage(`"app"`)}, {Name: tc.name, Value: json.RawMessage(tc.value)}}}
		if errs := Check(given, known); (len(errs) > 0) != (tc.want != "") {
			t.Errorf("added %s %s: %v", tc.name, tc.value, errs)
		}
	}
	if prob := judge(`{"client_id":5}`); prob == nil {
		t.Error("a number as client_id")
	}
	// None of it is the business of other types.
	p.Type = "JWT"
	if prob := judge(`{"client_id":5,"scope":["a"]}`); prob != nil {
		t.Error(prob)
	}
}

// Every name that keyturn writes, in every spelling that some reader takes for it.
func TestOwnNamesAreForbidden(t *testing.T) {
	for _, name := range ours {
		spellings := []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "s", "ſ"), strings.ReplaceAll(name, "k", "\u212a")}
		for _, spelling := range spellings {
			body, err := json.Marshal(map[string]any{"profile": "orders", "subject": "u", "claims": map[string]any{spelling: 1}})
			if err != nil {
				t.Fatal(err)
			}
			prob := judged(t, anybody("orders", "web"), string(body))
			if prob == nil || prob.Code != api.ClaimForbidden || !strings.Contains(prob.Detail, "keyturn alone writes") {
				t.Errorf("%s: %v", body, prob)
			}
		}
	}
}

func TestFold(t *testing.T) {
	for a, b := range map[string]string{"exp": "EXP", "iss": "iſS", "kid": "\u212aId", "σ": "ς", "tenant": "TenAnt"} {
		if fold(a) != fold(b) {
			t.Errorf("fold(%q) = %q, fold(%q) = %q", a, fold(a), b, fold(b))
		}
	}
	if fold("a") == fold("b") || fold("ı") == fold("i") {
		t.Error("fold joins what no reader confuses")
	}
}
