package condition

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// input is what most of these tests judge.
func input(claims ...string) Input {
	return Input{
		Claims:  pairs(claims...),
		Peer:    Peer{UID: 1000, GID: 100, Groups: []uint32{100, 2000}, Socket: "billing"},
		Request: Request{Profile: "orders", Subject: "user-7", Audience: []string{"api://orders", "api://stock"}, TTLSeconds: 300},
	}
}

// pairs are claims: a name, its JSON, a name, its JSON.
func pairs(claims ...string) func(func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for i := 0; i+1 < len(claims); i += 2 {
			if !yield(claims[i], []byte(claims[i+1])) {
				return
			}
		}
	}
}

func mustCompile(t testing.TB, text string) *Condition {
	t.Helper()
	c, err := Compile(text, Known{})
	if err != nil {
		t.Fatalf("Compile(%s) = %v", text, err)
	}
	return c
}

func TestEval(t *testing.T) {
	for text, want := range map[string]string{
		`claims.tenant in ['acme', 'globex']`:                       "true",
		`claims.tenant == 'globex'`:                                 "false",
		`has(claims.tenant) && claims.tenant == 'acme'`:             "true",
		`has(claims.realm) && claims.realm == 'x'`:                  "false",
		`!has(claims.realm)`:                                        "true",
		`claims.realm == 'x'`:                                       "no such key: realm",
		`claims.tenant`:                                             "compile",
		`claims.tenant > 3`:                                         "no such overload",
		`claims["https://x.example/tier"] == 2`:                     "true",
		`claims.roles.exists(r, r == 'admin')`:                      "true",
		`claims.roles.all(r, r == 'admin')`:                         "false",
		`'admin' in claims.roles`:                                   "true",
		`claims.roles == ['reader', 'admin']`:                       "true",
		`size(claims.roles) == 2`:                                   "true",
		`claims.org.unit.id == 12`:                                  "true",
		`claims.org.unit.name == null`:                              "true",
		`claims.scope.matches('(^| )orders:read( |$)')`:             "true",
		`claims.scope.matches('(^| )orders( |$)')`:                  "false",
		`claims.quoted == 'a"b'`:                                    "true",
		`claims.ratio < 1`:                                          "true",
		`claims.ratio == 0.25`:                                      "true",
		`claims.on == true`:                                         "true",
		`peer.uid == 1000 && peer.gid == 100`:                       "true",
		`2000 in peer.groups`:                                       "true",
		`0 in peer.groups`:                                          "false",
		`peer.socket == 'billing'`:                                  "true",
		`request.profile == 'orders'`:                               "true",
		`request.subject.startsWith('user-')`:                       "true",
		`request.ttl_seconds <= 60 || peer.uid == 1000`:             "true",
		`request.audience.exists(a, a == 'api://stock')`:            "true",
		`size(request.audience) == 1`:                               "false",
		`request.subject == 'user-' + string(7)`:                    "true",
		`1 / (peer.uid - 1000) == 0`:                                "division by zero",
		`9223372036854775807 + peer.uid > 0`:                        "overflow",
		`claims == {}`:                                              "false",
		"// only these\nclaims.tenant == 'acme' &&\n  peer.uid > 0": "true",
	} {
		t.Run(text, func(t *testing.T) {
			c, err := Compile(text, Known{})
			if want == "compile" {
				if err == nil {
					t.Error("it compiles")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.Eval(input("tenant", `"acme"`, "https://x.example/tier", "2", "roles", `["reader","admin"]`,
				"org", `{"unit":{"id":12,"name":null}}`, "scope", `"profile orders:read"`, "quoted", `"a\"b"`, "ratio", "0.25", "on", "true"))
			switch {
			case err != nil && (got || !strings.Contains(err.Error(), want)):
				t.Errorf("Eval = %v, %v, want %s", got, err, want)
			case err == nil && fmt.Sprint(got) != want:
				t.Errorf("Eval = %v, want %s", got, want)
			}
		})
	}
}

// A claim that the expression does not need may be missing; one that it does
// need refuses, unless the rest decides alone.
func TestErrorsRefuse(t *testing.T) {
	c := mustCompile(t, `claims.tenant == 'acme'`)
	for name, in := range map[string]Input{
		"no claims": {}, "null": input("tenant", "null"), "a number": input("tenant", "1"), "an object": input("tenant", `{"acme":1}`),
		"a list": input("tenant", `["acme"]`), "other case": input("Tenant", `"acme"`), "no JSON": input("tenant", `acme`), "empty": input("tenant", ""),
		"half a string": input("tenant", `"`), "another is odd": input("tenant", `"acme"`, "n", "1e999"),
	} {
		if got, err := c.Eval(in); got {
			t.Errorf("%s: allowed (%v)", name, err)
		}
	}
	if got, err := c.Eval(input("tenant", `"\u0061cme"`)); !got {
		t.Errorf("an escape: %v, %v", got, err)
	}
}

// TestNumbers: no number is taken for its neighbour, however it is written.
func TestNumbers(t *testing.T) {
	const big = "claims.n == 9007199254740993"
	for _, tc := range []struct{ text, n, want string }{
		{big, "9007199254740993", "true"},
		{big, "9007199254740992", "false"},
		{big, "9007199254740992.0", "false"}, // to a double the same
		{big, "9007199254740994.0", "false"},
		{big, "9007199254740993.0", "true"},
		{big, "9007199254740993e0", "true"},
		{big, "90071992547409930e-1", "true"},
		{big, "9007199254740993.5", "apart"},
		{big, "9007199254740992.9999999999999999999", "apart"},
		{big, "18446744073709551615", "apart"},
		{big, "9223372036854775808", "apart"},
		{big, "1e400", "apart"},
		{big, "1e19", "apart"},
		{big, "1e-400", "apart"},
		{big, "0." + strings.Repeat("1", 500), "apart"},
		{"claims.n == 9223372036854775807", "9223372036854775807", "true"},
		{"claims.n == 9223372036854775807", "9223372036854775806", "false"},
		{"claims.n == 9223372036854775807", "9.223372036854775807e18", "true"},
		{"claims.n == -9223372036854775808", "-9223372036854775808", "true"},
		{"claims.n == 0", "-0", "true"},
		{"claims.n == 0", "0e999999999", "true"},
		{"claims.n == 0", "-0.0", "true"},
		{"claims.n == 1", "1.0", "true"},
		{"claims.n == 1.0", "1", "true"},
		{"claims.n == 1000", "1e3", "true"},
		{"claims.n == 1", "1.0000000000000000001", "apart"}, // a fraction that a double drops
		{"claims.n == 0.1", "0.1", "true"},
		{"claims.n < 1", "0.999", "true"},
		{"claims.n > 1.5", "2", "true"},
		{"claims.n > 1.5 && claims.n < 9007199254740991.0", "9007199254740991", "false"},
		{"claims.n == '1'", "1", "false"},
	} {
		got, err := mustCompile(t, tc.text).Eval(input("n", tc.n))
		if err != nil && (got || !strings.Contains(err.Error(), tc.want)) || err == nil && fmt.Sprint(got) != tc.want {
			t.Errorf("%s with %s: %v, %v, want %s", tc.text, tc.n, got, err, tc.want)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	known := func(name string) error {
		if name != "tenant" {
			return errors.New("not in claims.allow or claims.add")
		}
		return nil
	}
	for text, want := range map[string]string{
		"":                                  "it is empty",
		" \n":                               "it is empty",
		"claims.tenant ==":                  "column 17: this is no CEL expression: it ends too early",
		"claims.tenant = 'x'":               "column 15: this is no CEL expression: equality is written ==",
		"peer.uidd == 1":                    "column 5: there is no peer.uidd: peer has gid, groups, socket, uid",
		"true && peer.pid == 1":             "column 13: there is no peer.pid: peer has",
		"peer == 1":                         "peer is no value by itself: write peer.gid, or another of",
		"request.ttl == '5m'":               "column 8: there is no request.ttl: request has audience, profile, subject, ttl_seconds",
		"request.ttl_seconds == '5m'":       "column 21: == does not take (int, string)",
		"peer.uid in ['a']":                 "column 10: in does not take (int, list(string))",
		"now < 5":                           "column 1: there is no now: a condition sees claims, peer.uid,",
		"tenant == 'acme'":                  "there is no tenant: a condition sees claims",
		"claims.tenant == acme":             "column 18: there is no acme: a condition sees",
		"claims.tenant":                     "it gives dyn, and has to give true or false: it may be anything; write … == true",
		"peer.uid":                          "it gives int, and has to give true or false",
		"'x'":                               "it gives string",
		"claims.tennant == 'x'":             "column 7: claims.tennant: not in claims.allow or claims.add",
		"claims['tennant'] == 'x'":          "claims.tennant: not in claims.allow",
		"has(claims.tennant)":               "claims.tennant: not in claims.allow",
		"claims.tenant.split(' ') == []":    "there is no function split",
		"!('tennant' in claims)":            "column 3: claims.tennant: not in claims.allow",
		"!has(dyn(claims).tennant)":         "claims.tennant: not in claims.allow",
		"dyn(dyn(claims))['tennant'] == 1":  "claims.tennant: not in claims.allow",
		"'tennant' in dyn(claims)":          "column 1: claims.tennant: not in claims.allow",
		"!claims.exists(k, k == 'tennant')": "column 24: claims.tennant: not in claims.allow",
		"claims.all(k, 'tennant' != k)":     "column 15: claims.tennant: not in claims.allow",
		"size(claims.filter(k, !(k in ['x', 'tenant']))) > 0":                                     "column 31: claims.x: not in claims.allow",
		"claims != {'tenant': 'x', 'admim': true}":                                                "column 27: claims.admim: not in claims.allow",
		"{'admim': true} == claims":                                                               "column 2: claims.admim: not in claims.allow",
		"timestamp('2020-01-01T00:00:00Z').getHours('Europe/Berlin') > 8":                         "there is no function timestamp",
		"duration('1h') > duration('1m')":                                                         "there is no function duration",
		"'x'.matches(claims.tenant)":                                                              "matches takes a pattern that is written out",
		"'x'.matches('(')":                                                                        "missing closing )",
		"'x'.matches('(((a{100}){100}){100})')":                                                   "invalid",
		"claims.tenant == 9007199254740993.0":                                                     "a double of that size",
		"google.protobuf.Struct{} == claims":                                                      "there are no messages here",
		"claims.tenant.exists(a, claims.tenant.exists(b, claims.tenant.exists(c, a == c)))":       "it could cost",
		"claims.tenant.exists(a, a.matches('^(" + strings.Repeat("x|", 200) + "y)$'))":            "it could cost",
		"true && " + strings.Repeat("(", 60) + "true" + strings.Repeat(")", 60):                   "recursion limit",
		"'" + strings.Repeat("x", MaxText) + "' == ''":                                            "size exceeds limit",
		"peer.uidd == 1 ||\n  request.subjekt == 'x'":                                             "line 2, column 10: there is no request.subjekt",
		"claims.exists(k, claims[k] == 1) && claims.all(a, claims.all(b, claims.all(c, a != b)))": "it could cost",
	} {
		_, err := Compile(text, Known{Claim: known})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Compile(%.100s) = %v\nwant %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "<input>") {
			t.Errorf("Compile(%.100s) = %v: in the library's words", text, err)
		}
	}
	// All faults at once.
	_, err := Compile("peer.uidd == 1 || request.ttl == 5", Known{})
	if err == nil || !strings.Contains(err.Error(), "peer.uidd") || !strings.Contains(err.Error(), "request.ttl:") {
		t.Errorf("two faults: %v", err)
	}
}

// Every function that can be written is known here: what a new version of the
// library brings is looked at before a caller can have it.
func TestFunctions(t *testing.T) {
	env, err := newEnv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, name := range slices.Sorted(maps.Keys(env.Functions())) {
		if !strings.ContainsAny(name, "_@!") {
			got = append(got, name)
		}
	}
	want := []string{"bool", "bytes", "contains", "double", "dyn", "endsWith", "in", "int", "matches", "size", "startsWith", "string", "type", "uint"}
	if !slices.Equal(got, want) {
		t.Errorf("functions %q, want %q", got, want)
	}
}

// What a caller sends cannot make an expression dear: it is refused instead.
func TestBounds(t *testing.T) {
	c := mustCompile(t, `claims.list.exists(r, r == 'admin')`)
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(`"x",`, n), ",") + "]" }
	for name, tc := range map[string]struct {
		in   Input
		want string
	}{
		"long list":     {input("list", list(maxItems)), "more than 1024 values"},
		"long text":     {input("list", `"`+strings.Repeat("x", maxString+1)+`"`), "has 2049 bytes"},
		"long escaped":  {input("list", `"\n`+strings.Repeat("x", maxString)+`"`), "has 2049 bytes"},
		"long name":     {input("list", `{"`+strings.Repeat("x", maxString+1)+`":1}`), "has 2049 bytes"},
		"many claims":   {Input{Claims: many(maxItems + 1)}, "more than 1024 values"},
		"many groups":   {Input{Peer: Peer{Groups: make([]uint32, maxItems+1)}}, "1025 groups"},
		"almost a list": {input("list", list(maxItems-1)), ""},
	} {
		got, err := c.Eval(tc.in)
		if got || (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, %v, want %q", name, got, err, tc.want)
		}
	}
}

func many(n int) func(func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for i := range n {
			if !yield(fmt.Sprint("c", i), []byte("1")) {
				return
			}
		}
	}
}

// The limit at work ends what the estimate let in, and nothing that is usual.
func TestCostLimit(t *testing.T) {
	list := func(text string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(`"`+text+`",`, n), ",") + "]"
	}
	c := mustCompile(t, `claims.list.all(r, r.matches('^[a-z]+(:(read|write|delete|list|watch))?$'))`)
	if ok, err := c.Eval(input("list", list("orders:read", maxItems-1))); !ok || err != nil {
		t.Errorf("a long list: %v, %v", ok, err)
	}
	if ok, err := c.Eval(input("list", list(strings.Repeat("x", maxString), maxItems-1))); ok || err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
		t.Errorf("a list of long texts: %v, %v", ok, err)
	}
}

// What fails says why in words of its own: no claim's value is in them.
func TestErrorsHoldNoValue(t *testing.T) {
	const secret = "hunter2"
	for text, want := range map[string]string{
		`int(claims.pin) == 1`:                            "type conversion error",
		`bool(claims.pin)`:                                "type conversion error",
		`{'a': 1}[claims.pin] == 1`:                       "no such key",
		`claims[claims.pin] == 1`:                         "no such key",
		`claims.absent == 1`:                              "no such key: absent",
		`[1][claims.n] == 1`:                              "out of bounds",
		`claims.pin + 1 == 2`:                             "no such overload",
		`claims.pin.all(c, c == 'x')`:                     "a value does not fit",
		`type(claims.pin) == int && claims.pin > 1`:       "",
		`size(claims.n) == 1`:                             "no such overload",
		`claims.pin.matches('hunter') && claims.pin == 1`: "",
	} {
		ok, err := mustCompile(t, text).Eval(input("pin", `"`+secret+`"`, "n", "77"))
		if ok || (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s: %v, %v, want %q", text, ok, err, want)
		}
	}
	c := mustCompile(t, `claims.tenant == 'acme'`)
	if _, err := c.Eval(Input{Claims: func(func(string, []byte) bool) { panic(secret) }}); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a panic: %v", err)
	}
	if _, err := c.Eval(input("tenant", secret)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("no JSON: %v", err)
	}
}

// A library that panics refuses.
func TestPanicRefuses(t *testing.T) {
	c := mustCompile(t, `claims.tenant == 'acme'`)
	allowed, err := c.Eval(Input{Claims: func(func(string, []byte) bool) { panic("boom") }})
	if allowed || err == nil || !strings.Contains(err.Error(), "gave up") {
		t.Errorf("Eval = %v, %v", allowed, err)
	}
}

// TestNames: every name that an expression looks for is known, so that no other is
// taken for it.
func TestNames(t *testing.T) {
	for text, want := range map[string]Names{
		`peer.uid == 1 && request.subject == 'x'`:                               {},
		`claims.a == 'x' && has(claims.b) && claims['c'] == 1 && 'd' in claims`: {Claims: []string{"a", "b", "c", "d"}},
		`claims.ctx.role == 'user' || has(claims.ctx['a'].b)`:                   {Claims: []string{"ctx"}, Inner: []string{"role", "b", "a"}},
		`claims.list.all(i, i.role == 'user')`:                                  {Claims: []string{"list"}, Inner: []string{"role"}},
		`claims.list.exists(i, i == 'admin') && !('b' in claims.ctx)`:           {Claims: []string{"list", "ctx"}, Inner: []string{"admin", "b"}},
		`claims.exists(k, k == 'a' || 'b' != k || k in ['c'])`:                  {Claims: []string{"a", "b", "c"}},
		`[claims].all(c, c.role == 'user')`:                                     {Inner: []string{"role"}},
		`claims.ctx != {'role': 'root'}`:                                        {Claims: []string{"ctx"}, Inner: []string{"role"}},
		`claims == {'role': 'root'}`:                                            {Claims: []string{"role"}, Inner: []string{"role"}},
		`dyn(claims).a == 1 && dyn(claims.b).c == 1`:                            {Claims: []string{"a", "b"}, Inner: []string{"c"}},
		`request.audience.all(a, a == 'x') && 'y' in request.audience`:          {},
		`['x'].exists(k, k == 'x') && request.subject in ['x']`:                 {},
		`claims['a' + 'b'] == 1`:                                                {}, // put together when it is asked
	} {
		c, err := Compile(text, Known{})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		got := c.Names()
		slices.Sort(got.Inner)
		slices.Sort(want.Inner)
		slices.Sort(got.Claims)
		slices.Sort(want.Claims)
		if !slices.Equal(got.Claims, want.Claims) || !slices.Equal(got.Inner, want.Inner) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestOneValue: a claim that holds more than one value is not judged by the first.
func TestOneValue(t *testing.T) {
	c := mustCompile(t, `claims.n == 1`)
	for _, raw := range []string{`1 {}`, `1 []`, `1 2`, `1,2`, `1}`, `1 "x"`, `1 null`, "1 \x00"} {
		if ok, err := c.Eval(input("n", raw)); ok || err == nil || !strings.Contains(err.Error(), "JSON") {
			t.Errorf("%q: %v, %v", raw, ok, err)
		}
	}
	if ok, err := c.Eval(input("n", " 1 ")); !ok {
		t.Errorf("spaces: %v", err)
	}
}
