package signer

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/keyring"
)

var testRings = map[string]Ring{"web": {"web", "main", time.Hour}}

func TestCompileRefuses(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for name, tc := range map[string]struct {
		change func(p *Profile)
		want   string
	}{
		"no name":               {func(p *Profile) { p.Name = "" }, "name: it needs"},
		"long name":             {func(p *Profile) { p.Name = strings.Repeat("x", 200) }, "name: it needs"},
		"name with a control":   {func(p *Profile) { p.Name = "a\x1b" }, "name: it holds U+001B"},
		"subject with NUL":      {func(p *Profile) { p.Subject = Subject{Fixed: "root\x00"} }, "subject: it holds U+0000"},
		"template with bidi":    {func(p *Profile) { p.Subject = Subject{FromPeer: "{uid}\u202e"} }, "subject: it holds U+202E"},
		"audience with C1":      {func(p *Profile) { p.Audiences = []string{"a\u0085"} }, `audiences: "a\u0085" holds U+0085`},
		"allowed with NUL":      {func(p *Profile) { p.Claims.Allow = []string{"exp\x00"} }, `claims.allow: "exp\x00" holds U+0000`},
		"added with a line":     {func(p *Profile) { p.Claims.Add = []Claim{{"exp\u2028", raw("1")}} }, "claims.add: \"exp\\u2028\" holds U+2028"},
		"required with DEL":     {func(p *Profile) { p.Claims = Claims{Allow: []string{"*"}, Require: []string{"a\x7f"}} }, "claims.require: \"a\\x7f\" holds U+007F"},
		"no ring":               {func(p *Profile) { p.Ring = "" }, `the rings are "web"`},
		"unknown ring":          {func(p *Profile) { p.Ring = "wep" }, `no ring "wep"`},
		"nobody":                {func(p *Profile) { p.Allow = nil }, "nobody could use"},
		"empty rule":            {func(p *Profile) { p.Allow = append(p.Allow, Rule{}) }, "allow item 2: it is empty"},
		"overflow uid":          {func(p *Profile) { p.Allow[0].UID = ptr(uint32(65534)) }, "uid 65534"},
		"overflow gid":          {func(p *Profile) { p.Allow[0].GID = ptr(uint32(65534)) }, "gid 65534"},
		"unknown uid":           {func(p *Profile) { p.Allow[0].UID = ptr(^uint32(0)) }, "uid 4294967295"},
		"no subject":            {func(p *Profile) { p.Subject = Subject{} }, "exactly one"},
		"two subjects":          {func(p *Profile) { p.Subject.Fixed = "x" }, "exactly one"},
		"placeholder":           {func(p *Profile) { p.Subject = Subject{FromPeer: "{uid}:{pid}"} }, "unknown placeholder {pid}"},
		"placeholder empty":     {func(p *Profile) { p.Subject = Subject{FromPeer: "{}{uid}"} }, "unknown placeholder {}"},
		"open brace":            {func(p *Profile) { p.Subject = Subject{FromPeer: "{uid}{"} }, "without its partner"},
		"no placeholder":        {func(p *Profile) { p.Subject = Subject{FromPeer: "me"} }, "use fixed"},
		"bad pattern":           {func(p *Profile) { p.Subject.Pattern = "(" }, "subject.pattern"},
		"pattern breaks out":    {func(p *Profile) { p.Subject.Pattern = "a)|(b" }, "subject.pattern"},
		"no audience":           {func(p *Profile) { p.Audiences = nil }, "audiences: none"},
		"empty audience":        {func(p *Profile) { p.Audiences = []string{""} }, "one is empty"},
		"audience twice":        {func(p *Profile) { p.Audiences = []string{"a", "a"} }, "twice"},
		"own claim allowed":     {func(p *Profile) { p.Claims.Allow = []string{"exp"} }, `"exp" is written by keyturn`},
		"own claim folded":      {func(p *Profile) { p.Claims.Allow = []string{"Exp"} }, `"Exp" is written by keyturn`},
		"own claim required":    {func(p *Profile) { p.Claims.Require = []string{"jti"} }, `claims.require: "jti"`},
		"own claim added":       {func(p *Profile) { p.Claims.Add = []Claim{{"iss", raw(`"x"`)}} }, `claims.add: "iss"`},
		"header name added":     {func(p *Profile) { p.Claims.Add = []Claim{{"kid", raw(`"x"`)}} }, `claims.add: "kid"`},
		"nameless claim":        {func(p *Profile) { p.Claims.Allow = []string{""} }, "needs a name"},
		"claim twice":           {func(p *Profile) { p.Claims.Allow = []string{"a", "a"} }, "twice"},
		"claim twins":           {func(p *Profile) { p.Claims.Allow = []string{"a", "A"} }, "differ in case"},
		"allowed and added":     {func(p *Profile) { p.Claims = Claims{Allow: []string{"a"}, Add: []Claim{{"a", raw("1")}}} }, "twice in claims.allow and claims.add"},
		"added star":            {func(p *Profile) { p.Claims.Add = []Claim{{"*", raw("1")}} }, "is not a name"},
		"value no JSON":         {func(p *Profile) { p.Claims.Add = []Claim{{"a", raw("prod")}} }, `value of "a"`},
		"value missing":         {func(p *Profile) { p.Claims.Add = []Claim{{"a", nil}} }, `value of "a"`},
		"value twice":           {func(p *Profile) { p.Claims.Add = []Claim{{"a", raw(`{"b":1,"b":2}`)}} }, "appears twice"},
		"required, not allowed": {func(p *Profile) { p.Claims = Claims{Allow: []string{"a"}, Require: []string{"b"}} }, `"b" is not in claims.allow`},
		"required and added": {func(p *Profile) {
			p.Claims = Claims{Allow: []string{"*"}, Require: []string{"a"}, Add: []Claim{{"a", raw("1")}}}
		}, `"a" is in claims.add`},
		"required twice":      {func(p *Profile) { p.Claims.Require = []string{"a", "a"} }, "twice"},
		"required star":       {func(p *Profile) { p.Claims.Require = []string{"*"} }, "not a name"},
		"typ":                 {func(p *Profile) { p.Type = "at jwt" }, "media type"},
		"at+jwt":              {func(p *Profile) { p.Type = "at+jwt" }, "client_id"},
		"at+jwt in full":      {func(p *Profile) { p.Type = "application/AT+JWT" }, "client_id"},
		"at+jwt not required": {func(p *Profile) { p.Type = "at+jwt"; p.Claims.Allow = []string{"client_id"} }, "client_id"},
		"at+jwt added number": {func(p *Profile) { p.Type = "at+jwt"; p.Claims.Add = []Claim{{"client_id", raw("1")}} }, "string"},
		"ttl zero":            {func(p *Profile) { p.TTL.Default = 0 }, "ttl.default: 0s"},
		"ttl fraction":        {func(p *Profile) { p.TTL.Max = 1500 * time.Millisecond; p.TTL.Default = time.Second }, "ttl.max: 1.5s"},
		"default over max":    {func(p *Profile) { p.TTL.Default = p.TTL.Max + time.Second }, "longer than ttl.max"},
		"max over ring":       {func(p *Profile) { p.TTL.Max = 2 * time.Hour }, "max_token_ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			p := anybody("orders", "web")
			tc.change(&p)
			if _, err := compileAll([]Profile{p}, testRings); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("compile = %v, want %q", err, tc.want)
			}
		})
	}
	_, err := compileAll([]Profile{anybody("a", "web"), anybody("a", "web"), {Name: "b"}}, testRings)
	if err == nil || !strings.Contains(err.Error(), "another profile") || !strings.Contains(err.Error(), "nobody could use") {
		t.Errorf("not all faults are told: %v", err)
	}
}

func TestCompileTakes(t *testing.T) {
	for name, change := range map[string]func(p *Profile){
		"plain":           func(*Profile) {},
		"added client_id": func(p *Profile) { p.Type = "at+jwt"; p.Claims.Add = []Claim{{"client_id", json.RawMessage(`"app"`)}} },
		"client_id":       func(p *Profile) { p.Type = "at+jwt"; p.Claims.Require = []string{"client_id"} },
		"other typ":       func(p *Profile) { p.Type = "secevent+jwt" },
		"socket only":     func(p *Profile) { p.Allow = []Rule{{Socket: "web"}} },
		"added null":      func(p *Profile) { p.Claims.Add = []Claim{{"none", json.RawMessage("null")}} },
	} {
		p := anybody("orders", "web")
		change(&p)
		if _, err := compileAll([]Profile{p}, testRings); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAllow(t *testing.T) {
	peer := unixsock.Peer{UID: 1000, GID: 100, Groups: []uint32{200, 65534}}
	overflow := unixsock.Peer{UID: 65534, GID: 65534}
	uid, gid, group := ptr(uint32(1000)), ptr(uint32(100)), ptr(uint32(200))
	other := ptr(uint32(1))
	for name, tc := range map[string]struct {
		rule Rule
		c    caller
		want bool
	}{
		"uid":                {Rule{UID: uid}, caller{"s", peer, true}, true},
		"other uid":          {Rule{UID: other}, caller{"s", peer, true}, false},
		"primary group":      {Rule{GID: gid}, caller{"s", peer, true}, true},
		"supplementary":      {Rule{GID: group}, caller{"s", peer, true}, true},
		"other group":        {Rule{GID: other}, caller{"s", peer, true}, false},
		"uid is no gid":      {Rule{GID: uid}, caller{"s", peer, true}, false},
		"socket":             {Rule{Socket: "s"}, caller{"s", peer, true}, true},
		"other socket":       {Rule{Socket: "t"}, caller{"s", peer, true}, false},
		"all":                {Rule{"s", uid, group}, caller{"s", peer, true}, true},
		"all but the socket": {Rule{"t", uid, group}, caller{"s", peer, true}, false},
		"all but the uid":    {Rule{"s", other, group}, caller{"s", peer, true}, false},
		"all but the gid":    {Rule{"s", uid, other}, caller{"s", peer, true}, false},
		"overflow, socket":   {Rule{Socket: "s"}, caller{"s", overflow, true}, false},
		"overflow uid":       {Rule{UID: ptr(uint32(65534))}, caller{"s", overflow, true}, false},
		"overflow gid":       {Rule{GID: ptr(uint32(65534))}, caller{"s", peer, true}, false},
		"unknown, socket":    {Rule{Socket: "s"}, caller{"s", peer, false}, false},
		"no credentials":     {Rule{Socket: "s"}, caller{"s", unixsock.Peer{UID: unixsock.Unknown}, true}, false},
		"root is not all":    {Rule{UID: uid}, caller{"s", unixsock.Peer{}, true}, false},
	} {
		p := &profile{Profile: Profile{Allow: []Rule{{UID: ptr(uint32(7))}, tc.rule}}}
		if got := p.allows(tc.c); got != tc.want {
			t.Errorf("%s: allows = %v", name, got)
		}
	}
}

// The pattern has to match the whole subject, however it is written.
func TestPatternIsAnchored(t *testing.T) {
	for _, tc := range []struct {
		pattern, subject string
		want             bool
	}{
		{"user-[0-9]+", "user-1", true},
		{"user-[0-9]+", "xuser-1", false},
		{"user-[0-9]+", "user-1x", false},
		{"^user-[0-9]+$", "user-1", true},
		{"^user-[0-9]+$", "user-1\n", false},
		{"^a$|^b$", "b", true},
		{"a|b", "ax", false},
		{"a|b", "xb", false},
		{"(?m)^user$", "evil\nuser", false},
		{"a|ab", "ab", true},
	} {
		p := anybody("p", "web")
		p.Subject.Pattern = tc.pattern
		c, err := compile(p, testRings)
		if err != nil {
			t.Fatal(err)
		}
		if _, prob := c.judgeSubject(tc.subject, unixsock.Peer{}); (prob == nil) != tc.want {
			t.Errorf("pattern %q, subject %q: %v", tc.pattern, tc.subject, prob)
		}
	}
}

func TestSetProfilesKeepsTheOld(t *testing.T) {
	w := newWorld(t, keyring.ES256).start().ready()
	if err := w.s.SetProfiles([]Profile{anybody("new", "ES256"), {Name: "bad"}}); err == nil {
		t.Fatal("a bad profile was taken")
	}
	w.mustSign("p-ES256")
	if err := w.s.SetProfiles([]Profile{anybody("new", "ES256")}); err != nil {
		t.Fatal(err)
	}
	w.mustSign("new")
	_, prob := w.ask(`{"profile":"p-ES256","subject":"u"}`)
	w.wantCode(prob, "forbidden", "")
}

func TestNewRefuses(t *testing.T) {
	good := newWorld(t, keyring.ES256).cfg
	for name, change := range map[string]func(c *Config){
		"no keys":     func(c *Config) { c.Keys = nil },
		"no audit":    func(c *Config) { c.Audit = nil },
		"ring twice":  func(c *Config) { c.Rings = append(c.Rings, c.Rings[0]) },
		"no issuer":   func(c *Config) { c.Rings = []Ring{{Name: "x"}} },
		"bad profile": func(c *Config) { c.Profiles = []Profile{{}} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New takes it", name)
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
