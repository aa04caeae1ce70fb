package profile

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/unixsock"
	"github.com/keyturn/keyturn/signer/request"
)

// known is what the profiles of these tests refer to.
var known = Known{Rings: []Ring{{"web", "main", time.Hour}}}

func ptr[T any](v T) *T { return &v }

// anybody is a profile for uid 1000 that leaves the request free.
func anybody(name, ring string) Config {
	return Config{
		Name: name, Ring: ring, Allow: []Rule{{UID: ptr(uint32(1000))}},
		Subject: Subject{Pattern: ".+"}, Audiences: []string{"api://orders", AnyName},
		Claims: Claims{Allow: []string{AnyName}}, TTL: TTL{5 * time.Minute, time.Hour},
	}
}

func TestCompileRefuses(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for name, tc := range map[string]struct {
		change func(p *Config)
		want   string
	}{
		"no name":             {func(p *Config) { p.Name = "" }, "name: it needs"},
		"long name":           {func(p *Config) { p.Name = strings.Repeat("x", 200) }, "name: it needs"},
		"name with a control": {func(p *Config) { p.Name = "a\x1b" }, "name: it holds U+001B"},
		"subject with NUL":    {func(p *Config) { p.Subject = Subject{Fixed: "root\x00"} }, "subject: it holds U+0000"},
		"template with bidi":  {func(p *Config) { p.Subject = Subject{FromPeer: "{uid}\u202e"} }, "subject: it holds U+202E"},
		"audience with C1":    {func(p *Config) { p.Audiences = []string{"a\u0085"} }, `audiences: "a\u0085" holds U+0085`},
		"allowed with NUL":    {func(p *Config) { p.Claims.Allow = []string{"exp\x00"} }, `claims.allow: "exp\x00" holds U+0000`},
		"added with a line":   {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "exp\u2028", Value: raw("1")}} }, "claims.add: \"exp\\u2028\" holds U+2028"},
		"required with DEL":   {func(p *Config) { p.Claims = Claims{Allow: []string{"*"}, Require: []string{"a\x7f"}} }, "claims.require: \"a\\x7f\" holds U+007F"},
		"no ring":             {func(p *Config) { p.Ring = "" }, `the rings are "web"`},
		"unknown ring":        {func(p *Config) { p.Ring = "wep" }, `no ring "wep"`},
		"nobody":              {func(p *Config) { p.Allow = nil }, "nobody could use"},
		"empty rule":          {func(p *Config) { p.Allow = append(p.Allow, Rule{}) }, "allow item 2: it is empty"},
		"overflow uid":        {func(p *Config) { p.Allow[0].UID = ptr(uint32(65534)) }, "uid 65534"},
		"overflow gid":        {func(p *Config) { p.Allow[0].GID = ptr(uint32(65534)) }, "gid 65534"},
		"unknown uid":         {func(p *Config) { p.Allow[0].UID = ptr(^uint32(0)) }, "uid 4294967295"},
		"no subject":          {func(p *Config) { p.Subject = Subject{} }, "exactly one"},
		"two subjects":        {func(p *Config) { p.Subject.Fixed = "x" }, "exactly one"},
		"placeholder":         {func(p *Config) { p.Subject = Subject{FromPeer: "{uid}:{pid}"} }, "unknown placeholder {pid}"},
		"placeholder empty":   {func(p *Config) { p.Subject = Subject{FromPeer: "{}{uid}"} }, "unknown placeholder {}"},
		"open brace":          {func(p *Config) { p.Subject = Subject{FromPeer: "{uid}{"} }, "without its partner"},
		"no placeholder":      {func(p *Config) { p.Subject = Subject{FromPeer: "me"} }, "use fixed"},
		"bad pattern":         {func(p *Config) { p.Subject.Pattern = "(" }, "subject.pattern"},
		"pattern breaks out":  {func(p *Config) { p.Subject.Pattern = "a)|(b" }, "subject.pattern"},
		"no audience":         {func(p *Config) { p.Audiences = nil }, "audiences: none"},
		"empty audience":      {func(p *Config) { p.Audiences = []string{""} }, "one is empty"},
		"audience twice":      {func(p *Config) { p.Audiences = []string{"a", "a"} }, "twice"},
		"own claim allowed":   {func(p *Config) { p.Claims.Allow = []string{"exp"} }, `"exp" is written by keyturn`},
		"own claim folded":    {func(p *Config) { p.Claims.Allow = []string{"Exp"} }, `"Exp" is written by keyturn`},
		"own claim required":  {func(p *Config) { p.Claims.Require = []string{"jti"} }, `claims.require: "jti"`},
		"own claim added":     {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "iss", Value: raw(`"x"`)}} }, `claims.add: "iss"`},
		"header name added":   {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "kid", Value: raw(`"x"`)}} }, `claims.add: "kid"`},
		"nameless claim":      {func(p *Config) { p.Claims.Allow = []string{""} }, "needs a name"},
		"unseen claim":        {func(p *Config) { p.Claims.Allow = []string{"\u034f"} }, "needs a name"},
		"unseen, required":    {func(p *Config) { p.Claims.Require = []string{"\ufe0f"} }, "is not a name"},
		"claim twice":         {func(p *Config) { p.Claims.Allow = []string{"a", "a"} }, "twice"},
		"claim twins":         {func(p *Config) { p.Claims.Allow = []string{"a", "A"} }, "differ in case"},
		"allowed and added": {func(p *Config) {
			p.Claims = Claims{Allow: []string{"a"}, Add: []request.Claim{{Name: "a", Value: raw("1")}}}
		}, "twice in claims.allow and claims.add"},
		"added star":            {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "*", Value: raw("1")}} }, "is not a name"},
		"value no JSON":         {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "a", Value: raw("prod")}} }, `value of "a"`},
		"value missing":         {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "a", Value: nil}} }, `value of "a"`},
		"value twice":           {func(p *Config) { p.Claims.Add = []request.Claim{{Name: "a", Value: raw(`{"b":1,"b":2}`)}} }, "appears twice"},
		"required, not allowed": {func(p *Config) { p.Claims = Claims{Allow: []string{"a"}, Require: []string{"b"}} }, `"b" is not in claims.allow`},
		"required and added": {func(p *Config) {
			p.Claims = Claims{Allow: []string{"*"}, Require: []string{"a"}, Add: []request.Claim{{Name: "a", Value: raw("1")}}}
		}, `"a" is in claims.add`},
		"required twice":      {func(p *Config) { p.Claims.Require = []string{"a", "a"} }, "twice"},
		"required star":       {func(p *Config) { p.Claims.Require = []string{"*"} }, "not a name"},
		"typ":                 {func(p *Config) { p.Type = "at jwt" }, "media type"},
		"at+jwt":              {func(p *Config) { p.Type = "at+jwt" }, "client_id"},
		"at+jwt in full":      {func(p *Config) { p.Type = "application/AT+JWT" }, "client_id"},
		"at+jwt not required": {func(p *Config) { p.Type = "at+jwt"; p.Claims.Allow = []string{"client_id"} }, "client_id"},
		"at+jwt added number": {func(p *Config) {
			p.Type = "at+jwt"
			p.Claims.Add = []request.Claim{{Name: "client_id", Value: raw("1")}}
		}, "string"},
		"ttl zero":         {func(p *Config) { p.TTL.Default = 0 }, "ttl.default: 0s"},
		"ttl fraction":     {func(p *Config) { p.TTL.Max = 1500 * time.Millisecond; p.TTL.Default = time.Second }, "ttl.max: 1.5s"},
		"default over max": {func(p *Config) { p.TTL.Default = p.TTL.Max + time.Second }, "longer than ttl.max"},
		"max over ring":    {func(p *Config) { p.TTL.Max = 2 * time.Hour }, "max_token_ttl"},
	} {
		t.Run(name, func(t *testing.T) {
			p := anybody("orders", "web")
			tc.change(&p)
			if _, err := Compile([]Config{p}, known); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("compile = %v, want %q", err, tc.want)
			}
		})
	}
	set, err := Compile([]Config{anybody("a", "web"), anybody("a", "web"), {Name: "b"}}, known)
	if err == nil || set != nil || !strings.Contains(err.Error(), "another profile") || !strings.Contains(err.Error(), "nobody could use") {
		t.Errorf("not all faults are told: %v", err)
	}
}

func TestCompileTakes(t *testing.T) {
	for name, change := range map[string]func(p *Config){
		"plain": func(*Config) {},
		"added client_id": func(p *Config) {
			p.Type = "at+jwt"
			p.Claims.Add = []request.Claim{{Name: "client_id", Value: json.RawMessage(`"app"`)}}
		},
		"client_id":   func(p *Config) { p.Type = "at+jwt"; p.Claims.Require = []string{"client_id"} },
		"other typ":   func(p *Config) { p.Type = "secevent+jwt" },
		"socket only": func(p *Config) { p.Allow = []Rule{{Socket: "web"}} },
		"added null":  func(p *Config) { p.Claims.Add = []request.Claim{{Name: "none", Value: json.RawMessage("null")}} },
	} {
		p := anybody("orders", "web")
		change(&p)
		if _, err := Compile([]Config{p}, known); err != nil {
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
		c    Caller
		want bool
	}{
		"uid":                {Rule{UID: uid}, Caller{"s", peer, true}, true},
		"other uid":          {Rule{UID: other}, Caller{"s", peer, true}, false},
		"primary group":      {Rule{GID: gid}, Caller{"s", peer, true}, true},
		"supplementary":      {Rule{GID: group}, Caller{"s", peer, true}, true},
		"other group":        {Rule{GID: other}, Caller{"s", peer, true}, false},
		"uid is no gid":      {Rule{GID: uid}, Caller{"s", peer, true}, false},
		"socket":             {Rule{Socket: "s"}, Caller{"s", peer, true}, true},
		"other socket":       {Rule{Socket: "t"}, Caller{"s", peer, true}, false},
		"all":                {Rule{"s", uid, group}, Caller{"s", peer, true}, true},
		"all but the socket": {Rule{"t", uid, group}, Caller{"s", peer, true}, false},
		"all but the uid":    {Rule{"s", other, group}, Caller{"s", peer, true}, false},
		"all but the gid":    {Rule{"s", uid, other}, Caller{"s", peer, true}, false},
		"overflow, socket":   {Rule{Socket: "s"}, Caller{"s", overflow, true}, false},
		"overflow uid":       {Rule{UID: ptr(uint32(65534))}, Caller{"s", overflow, true}, false},
		"overflow gid":       {Rule{GID: ptr(uint32(65534))}, Caller{"s", peer, true}, false},
		"unknown, socket":    {Rule{Socket: "s"}, Caller{"s", peer, false}, false},
		"no credentials":     {Rule{Socket: "s"}, Caller{"s", unixsock.Peer{UID: unixsock.Unknown}, true}, false},
		"root is not all":    {Rule{UID: uid}, Caller{"s", unixsock.Peer{}, true}, false},
	} {
		p := &Profile{Config: Config{Allow: []Rule{{UID: ptr(uint32(7))}, tc.rule}}}
		if got := p.Allows(tc.c); got != tc.want {
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
		c, err := compile(p, known)
		if err != nil {
			t.Fatal(err)
		}
		if _, prob := c.judgeSubject(tc.subject, unixsock.Peer{}); (prob == nil) != tc.want {
			t.Errorf("pattern %q, subject %q: %v", tc.pattern, tc.subject, prob)
		}
	}
}
