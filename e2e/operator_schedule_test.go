package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// TestUnsafeSchedule: a schedule that leaves no room for the lead is refused
// with the arithmetic, and each of the values that are said to fit does fit.
func TestUnsafeSchedule(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edits  [][2]string
		wants  []string
		advice []string // settings that have to be among the advice
	}{
		"the lead is longer than the gap": {
			[][2]string{{"consumer_cache: 2s", "consumer_cache: 20s"}},
			[]string{`schedule "@every 10s" leaves 10s between two rotations, and a new key needs 21.6s`,
				"tail = max_token_ttl 10s + clock_skew 1s + leeway 1s = 12s", "lead = consumer_cache 20s + clock_skew 1s = 21s"},
			[]string{"rotate", "consumer_cache"},
		},
		"replicas that may be cut off": {
			[][2]string{{"store: local", "store: vault"}, {"local: {dir: custody, key_file: seal.key}", `vault: {address: "https://v.example:8200", auth: {method: token_file, token_file: t}}`},
				{"@every 10s", "*/30 * * * *"}, {"consumer_cache: 2s", "consumer_cache: 10m"}, {"outage_budget: 4s", "outage_budget: 16m"}, {"max_token_ttl: 10s", "max_token_ttl: 5m"}},
			[]string{"leaves 30m0s between two rotations", "S    = outage_budget 16m0s + its eighth 2m0s", "lead = consumer_cache 10m0s + clock_skew 1s + S "},
			[]string{"rotate", "consumer_cache", "max_token_ttl", "outage_budget"},
		},
		"two rings, the tokens of one too long": {
			[][2]string{{"store: local", "store: vault"}, {"local: {dir: custody, key_file: seal.key}", `vault: {address: "https://v.example:8200", auth: {method: token_file, token_file: t}}`},
				{"@every 10s", "0 * * * *"}, {"consumer_cache: 2s", "consumer_cache: 10m"}, {"outage_budget: 4s", "outage_budget: 5m"},
				{"rings:\n", "rings:\n  - {name: long, issuer: main, algorithm: RS256, rotate: \"30 * * * *\", max_token_ttl: 3h}\n"}},
			[]string{`ring "web"`, `ring "long"`, "max_token_ttl 3h0m0s"},
			[]string{"max_token_ttl"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, e := range tc.edits {
				s.edit(e[0], e[1])
			}
			said := s.unsafe()
			wants(t, said, tc.wants...)
			advised := map[string]bool{}
			for _, one := range advice(t, said) {
				fit := *s
				setting := fit.apply(one)
				advised[setting] = true
				if out, errs, code := cli(t, nil, "config", "check", "--config", fit.save()); code != 0 || !strings.Contains(out, "lead = ") {
					t.Errorf("%q was said to fit, and does not:\n%s%s", one, out, errs)
				}
			}
			for _, setting := range tc.advice {
				if !advised[setting] {
					t.Errorf("no word of %s in:\n%s", setting, said)
				}
			}
		})
	}
}

// unsafe runs config check and run on the site and wants both to refuse alike.
func (s *site) unsafe() string {
	s.t.Helper()
	out, said, code := cli(s.t, nil, "config", "check", "--config", s.save())
	if code != 1 || out != "" {
		s.t.Errorf("config check: exit code %d, output %q", code, out)
	}
	if again := s.refuses(); again != said {
		s.t.Errorf("run says\n%s\nand config check\n%s", again, said)
	}
	return said
}

// advice lists what was said to fit, for each ring the same or its own.
func advice(t *testing.T, said string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(said) {
		if _, list, ok := strings.Cut(line, "any of these would fit: "); ok {
			out = append(out, strings.Split(strings.TrimSpace(list), " · ")...)
		}
	}
	if len(out) == 0 {
		t.Fatalf("it says not what would fit:\n%s", said)
	}
	return out
}

// apply changes the file as one piece of advice says, and returns which
// setting it was about.
func (s *site) apply(one string) string {
	s.t.Helper()
	set := func(name, value string) {
		field := regexp.MustCompile(`\b` + name + `: [0-9a-z.]+`)
		if !field.MatchString(s.text) {
			s.t.Fatalf("%s is not in the file", name)
		}
		s.text = field.ReplaceAllString(s.text, name+": "+value)
	}
	if m := regexp.MustCompile(`^rotate at least (\S+) apart with outage_budget: (\S+)$`).FindStringSubmatch(one); m != nil {
		s.text = regexp.MustCompile(`rotate: "[^"]+"`).ReplaceAllString(s.text, fmt.Sprintf(`rotate: "@every %s"`, m[1]))
		set("outage_budget", m[2])
		return "rotate"
	}
	name, value, ok := strings.Cut(one, ": ")
	if !ok {
		s.t.Fatalf("advice that nobody can follow: %q", one)
	}
	set(name, value)
	return name
}

// TestImpossibleSchedules: what never runs, or cannot be read, is said to be so.
func TestImpossibleSchedules(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	good := s.text
	for schedule, want := range map[string]string{
		"0 0 31 2 *":                 "never runs: no such day exists",
		"61 * * * *":                 "above maximum (59)",
		"* * *":                      "five cron fields, such as",
		"@every 0s":                  "at least 1s, such as 36h",
		"TZ=Europe/Berlin 0 3 * * 0": "write CRON_TZ= for a time zone",
		"CRON_TZ=Local 0 3 * * 0":    "name the time zone",
		"CRON_TZ=UTC":                "cron fields",
		"@reboot":                    "five cron fields",
	} {
		s.text = good
		said := s.edit("@every 10s", schedule).unsafe()
		wants(t, said, want, fmt.Sprintf(`ring "web": schedule %q`, schedule))
	}
	s.text = good
	s.edit("outage_budget: 4s", "outage_budget: 1s").edit("jwks_max_age: 2s", "jwks_max_age: 3s")
	wants(t, s.unsafe(), "outage_budget (1s) is too short to be renewed in time", "lower these, or rotate less often",
		"consumer_cache (2s) is shorter than jwks_max_age (3s)", "raise the first or lower the second")
}

// TestTimeline: config check prints what the solver derived.
func TestTimeline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	out, said, code := cli(t, nil, "config", "check", "--config", s.save())
	if code != 0 || said != "" {
		t.Fatalf("exit code %d: %s", code, said)
	}
	wants(t, out, "issuer main (http://"+s.public+"), revision 1", "outage budget 4s", "the lease runs 4s to 4.5s ahead",
		"tail = max_token_ttl 10s + clock_skew 1s + leeway 1s = 12s", "lead = consumer_cache 2s + clock_skew 1s = 3s",
		`ring web: ES256, "@every 10s", at least 10s apart, tokens live up to 10s`, "at most 5 keys in the set", "out of service within 17.7s")
}
