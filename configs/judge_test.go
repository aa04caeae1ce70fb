package configs

import (
	"errors"
	"strings"
	"testing"
)

// What others find is told together with what this package finds, but for what
// may be its echo.
func TestJudge(t *testing.T) {
	with := func(pairs ...string) string {
		text := minimal
		for i := 0; i < len(pairs); i += 2 {
			text = edit(t, text, pairs[i], pairs[i+1])
		}
		return text
	}
	for name, tc := range map[string]struct {
		text string
		path string // of the fault that the judge finds
		told bool
	}{
		"nothing else":             {minimal, "profiles[0].when", true},
		"another field":            {with("audiences: [a]", "audiences: [a]\n    when: x\n    typ: ''"), "profiles[0].when", true},
		"the same field":           {with("audiences: [a]", "audiences: [1]"), "profiles[0].audiences", false},
		"above it":                 {with("{fixed: me}", "{fixed: me, pattern: x}"), "profiles[0].subject.pattern", false},
		"below it":                 {with("uid: 0", "uid: -1"), "profiles[0].allow", false},
		"what a condition sees":    {with("audiences: [a]", "audiences: [a]\n    when: x\n    claims: {allow: [1]}"), "profiles[0].when", false},
		"a field that is missing":  {with("audiences: [a]", "audience: [a]"), "profiles[0].audiences", false},
		"another issuer's URL":     {with("https://tokens.example.com", "https://tokens.example.com/"), "profiles[0].subject", true},
		"the ring's TTL":           {with("algorithm: ES256", "algorithm: HS256"), "profiles[0].ttl.max", false},
		"a ring's schedule":        {with("https://tokens.example.com", "https://tokens.example.com/"), "rings[0].rotate", true},
		"an issuer's timing":       {with("algorithm: ES256", "algorithm: HS256"), "issuers[0]", false},
		"timing, and a profile":    {with("{fixed: me}", "{}"), "issuers[0]", true},
		"a field of no item":       {with("store: local", "store: local\nwatch: 1"), "issuers[0]", false},
		"one profile and the next": {with("{fixed: me}", "{}"), "profiles[1].subject", true},
	} {
		_, _, err := loadText(t, tc.text, Options{Judge: func(c *Config) []Fault { return []Fault{c.Fault(tc.path, errors.New("JUDGED"))} }})
		if err == nil || strings.Contains(err.Error(), "JUDGED") != tc.told {
			t.Errorf("%s: told %v, want %v:\n%v", name, !tc.told, tc.told, err)
		}
	}
}
