package keyring

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// selfConfig is bucketConfig with targets that each replica serves itself.
func selfConfig() Config {
	c := bucketConfig()
	c.Targets = []Target{{Name: "endpoint", Kind: TargetHTTP, Required: true}, {Name: "file", Kind: TargetFile, Required: true}}
	return c
}

// TestArithmetic is design.md §3 by hand.
func TestArithmetic(t *testing.T) {
	d := func(text string) time.Duration { return time.Duration(dur(text)) }
	local := selfConfig()
	local.SingleProcess = true
	two := selfConfig()
	two.Rings = append(two.Rings, Ring{Name: "long", MaxTokenTTL: dur("12h")})
	optional := bucketConfig()
	optional.Targets = append(optional.Targets, Target{Name: "file", Kind: TargetFile})
	devVault := Config{
		ConsumerCache: dur("5s"), ClockSkew: dur("2s"), Leeway: dur("1s"), SyncInterval: dur("1s"), OutageBudget: dur("20s"),
		Targets: []Target{{Kind: TargetFile}}, Rings: []Ring{{MaxTokenTTL: dur("60s")}},
	}
	for _, tc := range []struct {
		name string
		c    Config
		want Timing
		gap  string
		keys int
	}{
		// S = 24h + 3h + 10s + 1h + 20s + 60s; lead = 15m + 10s, S does not count
		{"a bucket", bucketConfig(), Timing{T: d("1h"), B: d("24h"), R: d("3h"), Tail: d("1h1m10s"), S: d("28h1m30s"), Lead: d("15m10s")}, "168h", 4},
		// 28h1m30s / 1h = 28.03 → 29 retiring, and 3
		{"a bucket, hourly", bucketConfig(), Timing{T: d("1h"), B: d("24h"), R: d("3h"), Tail: d("1h1m10s"), S: d("28h1m30s"), Lead: d("15m10s")}, "1h", 32},
		// lead = 15m + 10s + 28h1m30s
		{"endpoint and file", selfConfig(), Timing{T: d("1h"), B: d("24h"), R: d("3h"), Tail: d("1h1m10s"), S: d("28h1m30s"), Lead: d("28h16m40s")}, "168h", 4},
		{"one self-served target that is not required", optional, Timing{T: d("1h"), B: d("24h"), R: d("3h"), Tail: d("1h1m10s"), S: d("28h1m30s"), Lead: d("28h16m40s")}, "168h", 4},
		{"one process", local, Timing{T: d("1h"), B: d("24h"), R: d("3h"), Tail: d("1h1m10s"), S: d("28h1m30s"), Lead: d("15m10s")}, "168h", 4},
		// the issuer's largest T counts for all: S = 27h + 10s + 12h + 20s + 60s
		{"two rings", two, Timing{T: d("12h"), B: d("24h"), R: d("3h"), Tail: d("12h1m10s"), S: d("39h1m30s"), Lead: d("39h16m40s")}, "168h", 4},
		// configs/dev-vault.yaml: tail = 60 + 2 + 1; S = 20 + 2.5 + 1 + 2 + 63; lead = 5 + 2 + 88.5
		{"keyturn dev --vault", devVault, Timing{T: d("60s"), B: d("20s"), R: d("2.5s"), Tail: d("63s"), S: d("88.5s"), Lead: d("95.5s")}, "2m", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, tc.c.Timing()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := tc.c.KeysNeeded(d(tc.gap)); got != tc.keys {
				t.Errorf("%d keys at a gap of %s, want %d", got, tc.gap, tc.keys)
			}
		})
	}
}

func TestResolve(t *testing.T) {
	gaps := func(list ...string) map[string]time.Duration {
		m := map[string]time.Duration{}
		for i, g := range list {
			m[fmt.Sprint(i)] = time.Duration(dur(g))
		}
		return m
	}
	for _, tc := range []struct {
		name string
		b    string
		gaps map[string]time.Duration
		want string
	}{
		{"a third of a day", "0s", gaps("24h"), "8h"},
		{"at most a day", "0s", gaps("168h"), "24h"},
		{"exactly a day", "0s", gaps("72h"), "24h"},
		{"the shortest gap counts", "0s", gaps("168h", "3h", "48h"), "1h"},
		{"whole seconds", "0s", gaps("100s"), "33s"},
		{"below a second there are none", "0s", gaps("2s"), "666.666666ms"},
		{"what the file says stays", "5m", gaps("24h"), "5m"},
		{"without a schedule nothing follows", "0s", nil, "0s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := bucketConfig()
			c.OutageBudget = dur(tc.b)
			if got := c.Resolve(tc.gaps).OutageBudget; got != dur(tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if c.OutageBudget != dur(tc.b) {
				t.Error("Resolve changed the original")
			}
		})
	}
	c := Config{Targets: []Target{{Name: "b"}, {Name: "a"}}, Rings: []Ring{{Name: "z"}, {Name: "y"}}}
	r := c.Resolve(nil)
	if r.MaxKeys != DefaultMaxKeys || r.Targets[0].Name != "a" || r.Rings[0].Name != "y" {
		t.Errorf("resolved to %+v", r)
	}
	if c.Targets[0].Name != "b" || c.Rings[0].Name != "z" {
		t.Error("Resolve sorted the original")
	}
	c.MaxKeys = 7
	if got := c.Resolve(nil).MaxKeys; got != 7 {
		t.Errorf("max_keys became %d", got)
	}
}

func TestCheckRefuses(t *testing.T) {
	weekly := map[string]time.Duration{"web": week}
	for _, tc := range []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"no consumer_cache", func(c *Config) { c.ConsumerCache = 0 }, "consumer_cache is 0s: it must be positive"},
		{"no jwks_max_age", func(c *Config) { c.JWKSMaxAge = 0 }, "jwks_max_age is 0s: it must be positive"},
		{"no clock_skew", func(c *Config) { c.ClockSkew = 0 }, "clock_skew is 0s: it must be positive"},
		{"negative sync_interval", func(c *Config) { c.SyncInterval = -1 }, "sync_interval is -1ns: it must be positive"},
		{"no outage_budget", func(c *Config) { c.OutageBudget = 0 }, "outage_budget is 0s: it must be positive"},
		{"leeway under a second", func(c *Config) { c.Leeway = dur("999ms") }, "leeway is 999ms: consumers round times to seconds, so at least 1s"},
		{"C < max_age", func(c *Config) { c.ConsumerCache = dur("4m59s") }, "consumer_cache (4m59s) is shorter than jwks_max_age (5m0s)"},
		{"B over a day", func(c *Config) { c.OutageBudget = dur("24h1s") }, "outage_budget is 24h0m1s: at most 24h0m0s"},
		// 3 × 10s + 2 × 10s = 50s
		{"B too short to renew", func(c *Config) { c.OutageBudget = dur("49s") }, "at least 3 × sync_interval (10s) + 2 × clock_skew (10s) = 50s"},
		{"revision 0", func(c *Config) { c.Revision = 0 }, "revision is 0: start at 1"},
		{"no ring", func(c *Config) { c.Rings = nil }, "add one under rings with issuer: main"},
		{"no target", func(c *Config) { c.Targets = nil }, "no required target"},
		{"no required target", func(c *Config) { c.Targets[0].Required = false }, "no required target"},
		{"a view that shows nothing", func(c *Config) { c.Targets[0].View = ViewSPIFFE }, `target "bucket": the view "spiffe" shows no key of any ring`},
		{"algorithm none", func(c *Config) { c.Rings[0].Algorithm = "none" }, `ring "web": algorithm "none"`},
		{"RSA of 1024", func(c *Config) { c.Rings[0].Algorithm, c.Rings[0].RSABits = RS256, 1024 }, `ring "web": rsa_bits 1024`},
		{"tokens of no life", func(c *Config) { c.Rings[0].MaxTokenTTL = dur("999ms") }, `ring "web": max_token_ttl is 999ms: at least 1s`},
		{"no schedule", func(c *Config) { c.Rings[0].Name = "other" }, `ring "other": schedule "weekly" leaves 0s between two rotations`},
		// 28h1m30s / 168h → 1 retiring, and 3
		{"max_keys", func(c *Config) { c.MaxKeys = 3 }, "the set would hold up to 4 keys, max_keys is 3: rotate less often, or lower max_token_ttl (1h0m0s) or outage_budget (24h0m0s)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := bucketConfig()
			if err := c.Check(weekly); err != nil {
				t.Fatalf("the sound one is refused: %v", err)
			}
			tc.set(&c)
			err := c.Check(weekly)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), `issuer "main": `) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		err := (&Config{Name: "x"}).Check(nil)
		for _, want := range []string{"consumer_cache", "jwks_max_age", "clock_skew", "sync_interval", "outage_budget", "leeway", "revision", "ring", "target"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("no word of %s in %v", want, err)
			}
		}
	})
}

// TestRefusalShowsTheArithmetic: a schedule a second too short, and the very
// text that an operator reads.
func TestRefusalShowsTheArithmetic(t *testing.T) {
	c := selfConfig()
	c.OutageBudget = dur("8h")
	// S = 8h + 1h + 10s + 10s + 1h1m10s = 10h1m30s; lead = 10h16m40s; and three ticks: 10h17m10s
	need := dur("10h17m10s")
	if err := c.Check(map[string]time.Duration{"web": time.Duration(need)}); err != nil {
		t.Errorf("exactly what is needed is refused: %v", err)
	}
	err := c.Check(map[string]time.Duration{"web": time.Duration(need) - time.Second})
	want := `issuer "main": ring "web": schedule "weekly" leaves 10h17m9s between two rotations, and a new key needs 10h17m10s before it may sign:
  tail = max_token_ttl 1h0m0s + clock_skew 10s + leeway 1m0s = 1h1m10s
  S    = outage_budget 8h0m0s + its eighth 1h0m0s + sync_interval 10s + clock_skew 10s + tail 1h1m10s = 10h1m30s (how long a replica that is cut off may serve an old set)
  lead = consumer_cache 15m0s + clock_skew 10s + S 10h1m30s = 10h16m40s
  any of these would fit: rotate at least 10h17m10s apart with outage_budget: 8h0m0s · consumer_cache: 14m59s · max_token_ttl: 59m59s · outage_budget: 7h59m59s`
	if err == nil {
		t.Fatal("a schedule that is too short is taken")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// Two hours too short: 2h × 8/9 = 1h46m40s less of the budget, and a second
	// for the rounding.
	err = c.Check(map[string]time.Duration{"web": time.Duration(need) - 2*time.Hour})
	if err == nil || !strings.HasSuffix(err.Error(), "any of these would fit: rotate at least 10h17m10s apart with outage_budget: 8h0m0s · outage_budget: 6h13m19s") {
		t.Errorf("got %v", err)
	}
}

func TestExplain(t *testing.T) {
	bucket, local := bucketConfig(), selfConfig()
	local.SingleProcess = true
	for _, tc := range []struct {
		c    Config
		want string
	}{
		{bucket, "  tail = max_token_ttl 1h0m0s + clock_skew 10s + leeway 1m0s = 1h1m10s\n  lead = consumer_cache 15m0s + clock_skew 10s = 15m10s"},
		{local, "  tail = max_token_ttl 1h0m0s + clock_skew 10s + leeway 1m0s = 1h1m10s\n  lead = consumer_cache 15m0s + clock_skew 10s = 15m10s (store local: one process, nothing to be cut off from)"},
	} {
		if diff := cmp.Diff(tc.want, tc.c.Explain()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// offers reads the values out of an error of Check.
func offers(text string) []string {
	_, list, ok := strings.Cut(text, "any of these would fit: ")
	if !ok {
		return nil
	}
	list, _, _ = strings.Cut(list, "\n")
	return strings.Split(list, " · ")
}

var apart = regexp.MustCompile(`^rotate at least (\S+) apart with outage_budget: (\S+)$`)

// follow does what an offer says: to the file, and to the schedule of a ring.
func follow(t *rapid.T, c *Config, gaps map[string]time.Duration, ring, offer string) {
	if m := apart.FindStringSubmatch(offer); m != nil {
		gaps[ring] = time.Duration(dur(m[1]))
		c.OutageBudget = dur(m[2])
		return
	}
	name, value, ok := strings.Cut(offer, ": ")
	switch {
	case !ok:
		t.Fatalf("nobody understands the offer %q", offer)
	case name == "consumer_cache":
		c.ConsumerCache = dur(value)
	case name == "outage_budget":
		c.OutageBudget = dur(value)
	case name == "max_token_ttl":
		for i := range c.Rings {
			c.Rings[i].MaxTokenTTL = min(c.Rings[i].MaxTokenTTL, dur(value))
		}
	default:
		t.Fatalf("nobody understands the offer %q", offer)
	}
}

// TestAdviceIsTrue: whatever value an error offers, a file with it passes,
// resolved anew as a restart would.
func TestAdviceIsTrue(t *testing.T) {
	offered := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		span := func(name string, least, most time.Duration) Duration {
			return Duration(rapid.Int64Range(int64(least/time.Millisecond), int64(most/time.Millisecond)).Draw(t, name)) * Duration(time.Millisecond)
		}
		c := bucketConfig()
		if rapid.Bool().Draw(t, "self_served") {
			c = selfConfig()
			c.SingleProcess = rapid.IntRange(0, 4).Draw(t, "single") == 0
		}
		c.JWKSMaxAge = span("max_age", time.Second, 10*time.Minute)
		c.ConsumerCache = c.JWKSMaxAge + span("C", 0, time.Hour)
		c.ClockSkew, c.SyncInterval, c.Leeway = span("E", time.Millisecond, 30*time.Second), span("sync", 100*time.Millisecond, 30*time.Second), span("leeway", time.Second, 2*time.Minute)
		c.Rings[0].MaxTokenTTL = span("T", time.Second, 48*time.Hour)
		c.MaxKeys = rapid.SampledFrom([]int{4, 8, 100}).Draw(t, "max_keys")
		explicit := rapid.Bool().Draw(t, "explicit")
		c.OutageBudget = 0
		if explicit {
			c.OutageBudget = min(Duration(MaxOutageBudget), 3*c.SyncInterval+2*c.ClockSkew+span("B", 0, 24*time.Hour))
		}
		gap := time.Duration(span("gap", time.Second, 80*time.Hour))
		if explicit { // often a little too short, so that little has to change
			gap = max(time.Second, c.Timing().Lead+c.margin()-time.Duration(span("short", 0, 4*time.Hour))/4)
		}
		gaps := map[string]time.Duration{"web": gap}
		resolved := c.Resolve(gaps)
		err := resolved.Check(gaps)
		if err == nil {
			return
		}
		for _, offer := range offers(err.Error()) {
			file, schedule := c.Clone(), map[string]time.Duration{"web": gaps["web"]}
			follow(t, &file, schedule, "web", offer)
			file = file.Resolve(schedule)
			if again := file.Check(schedule); again != nil {
				t.Fatalf("%v\n\noffers %q, which is refused:\n%v", err, offer, again)
			}
			offered[strings.Fields(offer)[0]]++
		}
	})
	if len(offered) != 4 {
		t.Errorf("not every kind of offer was made: %v", offered)
	}
}

// TestAdviceForRings: with several rings an offer mends the ring that it is
// made for, and following the one for each mends all.
func TestAdviceForRings(t *testing.T) {
	c := selfConfig()
	c.OutageBudget = dur("1h")
	c.Rings = append(c.Rings, Ring{Name: "xyz", Algorithm: ES256, Custody: "vaultkv", Rotate: "often", MaxTokenTTL: dur("10m")})
	gaps := map[string]time.Duration{"web": 2 * time.Hour, "xyz": 90 * time.Minute}
	err := c.Check(gaps)
	if err == nil {
		t.Fatal("taken")
	}
	list := offers(err.Error())
	// S = 1h + 7m30s + 10s + 10s + 1h1m10s = 2h9m; lead = 2h24m10s; and three ticks: 2h24m40s
	if want := "rotate at least 2h24m40s apart with outage_budget: 1h0m0s"; list[0] != want {
		t.Errorf("got %q, want %q", list[0], want)
	}
	for ring := range gaps {
		gaps[ring] = time.Duration(dur("2h24m40s"))
	}
	if err := c.Check(gaps); err != nil {
		t.Error(err)
	}
	full := c
	full.MaxKeys = 5
	gaps["web"] = time.Minute
	if err := full.Check(gaps); err == nil || !strings.Contains(err.Error(), "no single change would fit") {
		t.Errorf("got %v", err)
	}
}
