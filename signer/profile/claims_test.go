package profile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/api"
	"github.com/keyturn/keyturn/internal/strictjson"
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
		spellings := []string{
			name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], strings.ReplaceAll(name, "s", "ſ"), strings.ReplaceAll(name, "k", "\u212a"),
			strings.ReplaceAll(name, "i", "ı"), strings.ReplaceAll(name, "i", "İ"), strings.ReplaceAll(name, "ss", "ß"), strings.ReplaceAll(name, "ss", "ẞ"),
			name[:1] + "\u034f" + name[1:], name + "\ufe0f",
		}
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
	for a, b := range map[string]string{
		"exp": "EXP", "iss": "iſS", "kid": "\u212aId", "σ": "ς", "tenant": "TenAnt", "ıat": "iat", "jtİ": "jti", "iß": "iss", "oﬃce": "OFFICE", "µ": "Μ",
		"e\u034fxp\ufe0f": "exp", "\u3164": "",
	} {
		if !same(a, b) {
			t.Errorf("%q and %q are not the same", a, b)
		}
		if fold(a) != fold(b) {
			t.Errorf("fold(%q) = %q, fold(%q) = %q", a, fold(a), b, fold(b))
		}
	}
	for a, b := range map[string]string{"a": "b", "é": "e", "ss": "s", "о": "o", "user_id": "userid"} { // Cyrillic о
		if fold(a) == fold(b) || same(a, b) {
			t.Errorf("fold joins %q and %q, which no reader confuses", a, b)
		}
	}
}

// A claim that some readers take for one that the profile is about has to be
// that very one: what was judged is what is read.
func TestMistakableClaims(t *testing.T) {
	const role, ctx = "!has(claims.admin) && (!has(claims.role) || claims.role == 'user')", "claims.ctx.role == 'user'"
	list := func(names ...string) Claims { return Claims{Allow: names} }
	for _, tc := range []struct {
		name   string
		when   string
		typ    string
		rules  Claims
		claims string
		want   string // in the detail; "" where it is granted
	}{
		{"the condition's own", role, "", list("*"), `{"role":"user"}`, ""},
		{"an absent one in other case", role, "", list("*"), `{"Admin":true}`, `"Admin" for "admin"`},
		{"another value", role, "", list("*"), `{"ROLE":"root"}`, `"ROLE" for "role"`},
		{"Java's", "claims.id == 1", "", list("*"), `{"id":1,"ıd":2}`, `"ıd" for "id"`},
		{"by index", "!has(claims.a) || claims['rôle'] == 1", "", list("*"), `{"RÔLE":1}`, `"RÔLE" for "rôle"`},
		{"membership", "!('admin' in claims)", "", list("*"), `{"aDmin":1}`, `for "admin"`},
		{"in a loop", "!claims.exists(k, k == 'admin')", "", list("*"), `{"aDmin":1}`, `for "admin"`},
		{"by another way", "[claims].all(c, !has(c.admin))", "", list("*"), `{"aDmin":1}`, `for "admin"`},
		{"what is allowed beside all", "", "", list("*", "tenant"), `{"Tenant":"x"}`, `for "tenant"`},
		{"what is required", "", "", Claims{Allow: []string{"*"}, Require: []string{"tenant"}}, `{"tenant":"a","TENANT":"x"}`, `for "tenant"`},
		{"an access token's", "", "at+jwt", Claims{Allow: []string{"*"}, Require: []string{"client_id"}}, `{"client_id":"a","Scope":["x"]}`, `"Scope" for "scope"`},
		{"an access token's groups", "", "at+jwt", Claims{Allow: []string{"*"}, Require: []string{"client_id"}}, `{"client_id":"a","Groups":"x"}`, `for "groups"`},
		{"of no other typ", "", "", list("*"), `{"Scope":["x"]}`, ""},
		{"within", ctx, "", list("ctx"), `{"ctx":{"role":"user"}}`, ""},
		{"within, in other case", "!has(claims.ctx.role)", "", list("ctx"), `{"ctx":{"Role":"root"}}`, `holds the name "Role", which some readers take for "role"`},
		{"deep within", "!has(claims.ctx.a.role)", "", list("ctx"), `{"ctx":{"a":[{"b":1},{"ROLE":2}]}}`, `for "role"`},
		{"of a list's items", "claims.list.all(i, !has(i.role))", "", list("list"), `{"list":[{"Role":1}]}`, `for "role"`},
		{"compared as a whole", "claims.ctx != {'role': 'root'}", "", list("ctx"), `{"ctx":{"Role":"root"}}`, `for "role"`},
		{"the name of a claim within another", role, "", list("*"), `{"ctx":{"Admin":1}}`, ""},
		{"a name within as a claim", ctx, "", list("*"), `{"ctx":{"role":"user"},"Role":1}`, `for "role"`},
		{"the same, and allowed", ctx, "", list("ctx", "Role"), `{"ctx":{"role":"user"},"Role":1}`, ""},
		{"no name", "", "", list("*"), `{"":1}`, "needs a name"},
		{"no name that is seen", "", "", list("*"), `{"\u3164":1}`, "needs a name"},
		{"the star", "", "", list("*"), `{"*":1}`, ""},
	} {
		cfg := anybody("orders", "web")
		cfg.When, cfg.Type, cfg.Claims = tc.when, tc.typ, tc.rules
		prob := judged(t, cfg, `{"profile":"orders","subject":"u","claims":`+tc.claims+`}`)
		if tc.want == "" && prob != nil || tc.want != "" && (prob == nil || prob.Code != api.ClaimForbidden || !strings.Contains(prob.Detail, tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, prob, tc.want)
		}
	}
}

// A profile that is about two names which some readers take for each other is
// refused when it is loaded.
func TestTwinsInAProfile(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(p *Config)
		want   string
	}{
		"allowed and in the condition":  {func(p *Config) { p.Claims.Allow = append(p.Claims.Allow, "Role"); p.When = "claims.role == 1" }, `when: column 7: claims.role: the profile is about "Role", too`},
		"twice in the condition":        {func(p *Config) { p.When = "claims.Role == 1 || claims.role == 1" }, `claims.role: the profile is about "Role", too`},
		"required and allowed":          {func(p *Config) { p.Claims.Allow = append(p.Claims.Allow, "Role"); p.Claims.Require = []string{"role"} }, `claims.require: "Role" and "role" differ in case only`},
		"required and in the condition": {func(p *Config) { p.Claims.Require = []string{"Role"}; p.When = "claims.role == 1" }, `the profile is about "Role", too`},
		"added and in the condition": {func(p *Config) {
			p.Claims.Add, p.When = []request.Claim{{Name: "Role", Value: json.RawMessage("1")}}, "claims.role == 1"
		}, `the profile is about "Role", too`},
		"an access token's": {func(p *Config) {
			p.Type, p.Claims = "at+jwt", Claims{Allow: []string{"*", "Scope", "client_id"}, Require: []string{"client_id"}}
		}, `claims.allow: "scope" and "Scope" differ in case only`},
		"twins in an added value":       {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "a", Value: json.RawMessage(`{"b":1,"B":2}`)}} }, `claims.add: the claim "a" holds the names "b" and "B"`},
		"a huge number in an added one": {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "a", Value: json.RawMessage(`1e400`)}} }, `claims.add: the claim "a" holds the number 1e400`},
	} {
		p := anybody("orders", "web")
		tc.change(&p)
		errs := Check(p, known)
		if len(errs) != 1 || !strings.Contains(errs[0].Error(), tc.want) {
			t.Errorf("%s: %q, want %q", name, errs, tc.want)
		}
	}
}

// What stands within a claim is refused as it is at the top.
func TestValues(t *testing.T) {
	for value, want := range map[string]struct {
		code api.Code
		text string
	}{
		`{"role":"user","Role":"root"}`:            {api.InvalidRequest, `holds the names "role" and "Role", which differ in case only`},
		`[1,{"a":{"ıd":1,"b":[],"id":2}}]`:         {api.InvalidRequest, `"ıd" and "id"`},
		`{"a":{"b":1},"B":2}`:                      {},
		`{"a":{"b":{}},"A":2}`:                     {api.InvalidRequest, `"a" and "A"`},
		`{"a":{"b":1},"c":[{"B":1},{"A":2}]}`:      {}, // each of another object
		`{"role":"user","role\u0000x":"root"}`:     {api.ClaimForbidden, `with U+0000`},
		`[{"\u202erole":"root"}]`:                  {api.ClaimForbidden, `with U+202E`},
		`"{\"a\":1,\"A\":2}"`:                      {}, // a text
		`["a\\","{","}"]`:                          {},
		`{"a":"\u0000"}`:                           {}, // values may hold what they like
		`1e400`:                                    {api.InvalidRequest, "number 1e400,"},
		`-1E400`:                                   {api.InvalidRequest, "number -1E400,"},
		`1e999999999`:                              {api.InvalidRequest, "beyond a double"},
		`1e-999999999`:                             {api.InvalidRequest, "beyond a double"},
		`0e999999999`:                              {api.InvalidRequest, "beyond a double"},
		`[[1,{"a":1e400}]]`:                        {api.InvalidRequest, "number 1e400,"},
		`["e",1e400]`:                              {api.InvalidRequest, "number 1e400,"},
		strings.Repeat("9", 310):                   {api.InvalidRequest, "beyond a double"},
		"[1," + strings.Repeat("9", 310) + "]":     {api.InvalidRequest, "beyond a double"},
		"0." + strings.Repeat("0", 400) + "1":      {api.InvalidRequest, "beyond a double"},
		strings.Repeat("9", 308):                   {},
		`1.7976931348623157e308`:                   {},
		`1e-300`:                                   {},
		`0e0`:                                      {},
		`12345678901234567890123`:                  {},
		`[true,false,null,1.5,-0.0,1e3,"1e400"]`:   {},
		`{"a":[1e3,{"b":1.0}]}`:                    {},
		`"` + strings.Repeat("9", 400) + `e1{"`:    {},
		`"1` + strings.Repeat("9", 400) + `"`:      {},
		`{"` + strings.Repeat("9", 400) + `":"e"}`: {},
	} {
		prob := judged(t, anybody("orders", "web"), `{"profile":"orders","subject":"u","claims":{"c":`+value+`}}`)
		if want.code == "" && prob != nil || want.code != "" && (prob == nil || prob.Code != want.code || !strings.Contains(prob.Detail, want.text)) {
			t.Errorf("%.60s: %v, want %v", value, prob, want)
		}
		if prob != nil && len(prob.Detail) > 400 {
			t.Errorf("%.60s: a detail of %d bytes", value, len(prob.Detail))
		}
	}
}

// Twins are found among few names and among many, in whatever order they come.
func TestTwins(t *testing.T) {
	for _, names := range []int{2, manyNames - 1, manyNames, manyNames + 1, 3 * manyNames} {
		for at := range names - 1 {
			var found twins
			for i := range names {
				name := strings.Repeat("n", i+1)
				if i == names-1 {
					name = strings.Repeat("N", at+1)
				}
				before, twin := found.find(name)
				if twin != (i == names-1) || twin && before != strings.Repeat("n", at+1) {
					t.Fatalf("of %d names, %q: %q, %t", names, name, before, twin)
				}
			}
		}
	}
	var wide twins
	for _, name := range []string{"ab", "straße", "iss"} {
		if before, twin := wide.find(name); twin {
			t.Errorf("%q is taken for %q", name, before)
		}
	}
	if before, twin := wide.find("STRASSE"); !twin || before != "straße" {
		t.Errorf("STRASSE: %q, %t", before, twin)
	}
}

// FuzzValue holds the quick look at a value against the thorough one.
func FuzzValue(f *testing.F) {
	for _, value := range []string{`{"a":1,"A":2}`, `[1e400]`, `"\\\""`, `["{",1E5]`, `1`, `[true,{"":null}]`, strings.Repeat("1", 400)} {
		f.Add([]byte(value))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if strictjson.Check(value) != nil {
			return // no such value gets here
		}
		inspect("c", value, nil)
		if !isFlat(value) {
			return
		}
		for part := range strictjson.Parts(value) {
			if part.Kind != strictjson.Number || !holds(part.Text) {
				t.Fatalf("%q is said to be flat, and holds %+v", value, part)
			}
		}
	})
}

func TestFlatCostsNothing(t *testing.T) {
	set, err := Compile([]Config{anybody("orders", "web")}, known)
	if err != nil {
		t.Fatal(err)
	}
	e := request.Parse([]byte(`{"profile":"orders","subject":"u","claims":{"tenant":"acme","scope":"read {write}","n":12,"list":["a","e",1]}}`))
	rules := &set["orders"].claims
	if n := testing.AllocsPerRun(100, func() {
		if _, prob := rules.judge(&e.Request); prob != nil {
			t.Fatal(prob)
		}
	}); n != 0 {
		t.Errorf("judging flat claims allocates %v times", n)
	}
}
