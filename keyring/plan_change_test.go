package keyring

import (
	"slices"
	"testing"
	"time"
)

// algs tells the algorithms of a ring's standbys and of its active key.
func algs(s *Snapshot, ring string) (standbys []Algorithm, active Algorithm) {
	for _, k := range s.standbys(ring) {
		standbys = append(standbys, k.JWK.Alg)
	}
	if k := s.Active(ring); k != nil {
		active = k.JWK.Alg
	}
	return standbys, active
}

func wantAlgs(t testing.TB, s *Snapshot, active Algorithm, standbys ...Algorithm) {
	t.Helper()
	gotStandbys, gotActive := algs(s, "web")
	if gotActive != active || !slices.Equal(gotStandbys, standbys) {
		t.Fatalf("active %s, standbys %v; want %s and %v", gotActive, gotStandbys, active, standbys)
	}
}

// TestChangeOfAlgorithm: a second standby joins the first, which goes when the
// new one is proven; the active key is untouched until its rotation.
func TestChangeOfAlgorithm(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn()
	l.revise(func(c *Config) { c.Rings[0].Algorithm, c.Rings[0].RSABits = RS256, 2048 })
	l.turn()
	wantAlgs(t, l.s, EdDSA, EdDSA, RS256)
	l.wait(time.Hour)
	wantNothing(t, l.commit()) // not read back: nothing moves
	l.publish()
	l.turn()
	wantAlgs(t, l.s, EdDSA, EdDSA, RS256)
	l.wait(910*time.Second - time.Millisecond)
	l.turn()
	wantAlgs(t, l.s, EdDSA, EdDSA, RS256)
	l.wait(time.Millisecond)
	l.turn()
	wantAlgs(t, l.s, EdDSA, RS256)
	l.now = l.s.Active("web").Activated.Add(week)
	l.turn()
	wantAlgs(t, l.s, RS256, RS256)
}

// TestRotationDuringAChange of algorithm takes the standby that is proven, be
// it the old one.
func TestRotationDuringAChange(t *testing.T) {
	l := settled(t, bucketConfig())
	l.revise(func(c *Config) { c.Rings[0].Algorithm = ES256 })
	l.turn()
	out := l.commit(asked("web"))
	if out.Refused != nil {
		t.Fatalf("refused: %v", out.Refused)
	}
	wantAlgs(t, l.s, EdDSA, ES256)
	// Nobody is proven now: the answer is when the first will be.
	l.publish()
	l.turn()
	if e := refusal(t, l.plan(asked("web"))); !e.SafeAt.Equal(l.now.Add(910 * time.Second)) {
		t.Errorf("safe at %v", e.SafeAt)
	}
}

// TestChangeBackAndForth: there are never more than two standbys, and the
// proven one is kept.
func TestChangeBackAndForth(t *testing.T) {
	l := settled(t, bucketConfig())
	proven := l.s.Standby("web").JWK.Kid
	l.revise(func(c *Config) { c.Rings[0].Algorithm = ES256 })
	l.turn()
	l.revise(func(c *Config) { c.Rings[0].Algorithm = ES384 })
	l.turn()
	wantAlgs(t, l.s, EdDSA, EdDSA, ES384)
	l.revise(func(c *Config) { c.Rings[0].Algorithm = EdDSA })
	l.turn()
	wantAlgs(t, l.s, EdDSA, EdDSA)
	if l.s.Standby("web").JWK.Kid != proven {
		t.Error("the proven standby was dropped")
	}
}

// TestRefusalNamesTheFirst: of two standbys that wait, SafeAt is that of the
// one which is safe first, and at that time it is taken.
func TestRefusalNamesTheFirst(t *testing.T) {
	l := settled(t, bucketConfig())
	l.turn(asked("web"))
	l.publish()
	l.turn() // the old kind of standby, read back now
	first := l.now.Add(910 * time.Second)
	l.revise(func(c *Config) { c.Rings[0].Algorithm = ES256 })
	l.turn()
	if e := refusal(t, l.plan(asked("web"))); !e.SafeAt.Equal(first) || e.Waiting != nil {
		t.Errorf("with the new one not read back: %+v, want safe at %v", e, first)
	}
	l.wait(5 * time.Minute)
	l.publish()
	l.turn()
	if e := refusal(t, l.plan(asked("web"))); !e.SafeAt.Equal(first) {
		t.Errorf("with the new one read back later: safe at %v, want %v", e.SafeAt, first)
	}
	l.now = first
	if out := l.commit(asked("web")); out.Refused != nil {
		t.Errorf("refused at its own time: %v", out.Refused)
	}
	wantAlgs(t, l.s, EdDSA, ES256)
}

// TestChangeOfCustody is one of algorithm to the standby.
func TestChangeOfCustody(t *testing.T) {
	l := settled(t, bucketConfig())
	l.revise(func(c *Config) { c.Rings[0].Custody = "transit" })
	l.turn()
	var custodies []string
	for _, k := range l.s.standbys("web") {
		custodies = append(custodies, k.Custody)
	}
	if !slices.Equal(custodies, []string{"vaultkv", "transit"}) {
		t.Errorf("standbys in %v", custodies)
	}
}

// TestFreshKeyThatDoesNotFit is not taken: of another ring, algorithm, length
// or custody, known already, or recorded as closed.
func TestFreshKeyThatDoesNotFit(t *testing.T) {
	l := settled(t, bucketConfig())
	l.revise(func(c *Config) { c.Rings[0].Algorithm, c.Rings[0].RSABits = RS256, 3072 })
	l.commit()
	good := Fresh{Ring: "web", JWK: testJWK(t, RS256, 3072, 1), Custody: "vaultkv", Handle: "h"}
	for name, change := range map[string]func(*Fresh){
		"ring":      func(f *Fresh) { f.Ring = "api" },
		"algorithm": func(f *Fresh) { f.JWK = testJWK(t, RS384, 3072, 1) },
		"length":    func(f *Fresh) { f.JWK = testJWK(t, RS256, 2048, 1) },
		"custody":   func(f *Fresh) { f.Custody = "local" },
		"a known":   func(f *Fresh) { f.JWK = l.s.Active("web").JWK },
	} {
		f := good
		change(&f)
		out := l.plan(func(in *Input) { in.Fresh = []Fresh{f} })
		if out.Next != nil || len(out.Create) != 1 {
			t.Errorf("%s: taken: %v", name, out.Events)
		}
	}
	// A half that was closed as an orphan while its depositor slept.
	l.commit(func(in *Input) { in.Orphans = []string{good.JWK.Kid} })
	fresh := func(in *Input) { in.Fresh = []Fresh{good} }
	if out := l.plan(fresh); slices.Contains(kinds(out), KeyCreated) {
		t.Error("a closed orphan became a standby")
	}
	l.commit(func(in *Input) { in.Gone = []string{good.JWK.Kid} })
	wantEvents(t, l.commit(fresh), KeyCreated)
}

// lowered changes an issuer with self-served targets and returns its life
// right after the revision's write.
func lowered(t *testing.T, change func(*Config)) *life {
	t.Helper()
	l := settled(t, selfConfig())
	l.turn()
	l.revise(change)
	l.commit()
	if l.s.Config.Revision != 2 {
		t.Fatal("not adopted")
	}
	return l
}

// TestLoweredBudgetEntersLate: the lead before was 28h16m40s. A lowered B
// counts in it only C + old S + 2E = 15m + 28h1m30s + 20s after its write.
func TestLoweredBudgetEntersLate(t *testing.T) {
	l := lowered(t, func(c *Config) { c.OutageBudget = dur("8h") })
	late := time.Duration(dur("28h16m50s"))
	if f := l.s.Floor; f == nil || f.Span != dur("28h1m30s") || !f.Until.Equal(l.now.Add(late)) {
		t.Fatalf("floor %+v, written at %v", f, l.now)
	}
	// S = 8h + 1h + 20s + 1h1m10s = 10h1m30s
	for _, tc := range []struct {
		after time.Duration
		lead  string
	}{{0, "28h16m40s"}, {late - time.Nanosecond, "28h16m40s"}, {late, "10h16m40s"}} {
		if got := l.s.Lead(l.now.Add(tc.after)); got != time.Duration(dur(tc.lead)) {
			t.Errorf("%s after: lead %s, want %s", tc.after, got, tc.lead)
		}
	}
	if l.s.LeaseFault(l.now) {
		t.Error("the lease of before counts as a clock fault")
	}
	until := l.s.Floor.Until
	for l.now.Before(until) { // what is written meanwhile leaves it as it is
		if l.turn(); l.s.Floor == nil || !l.s.Floor.Until.Equal(until) {
			t.Fatalf("at %v the floor is %+v", l.now, l.s.Floor)
		}
		l.wait(2 * time.Hour)
	}
	l.revise(func(c *Config) { c.MaxKeys = 90 })
	if l.turn(); l.s.Floor != nil {
		t.Errorf("after its time the floor is %+v", l.s.Floor)
	}
}

// TestLoweredBudgetWithLongerTokens: a replica that reads the revision and is
// then cut off has the old, long lease and the new, long tail.
func TestLoweredBudgetWithLongerTokens(t *testing.T) {
	l := lowered(t, func(c *Config) { c.OutageBudget, c.Rings[0].MaxTokenTTL = dur("8h"), dur("40h") })
	if l.s.LeaseFault(l.now) {
		t.Error("the lease of before counts as a clock fault")
	}
	if least := l.s.ServeUntil().Sub(l.now) + time.Duration(l.s.Config.ConsumerCache); l.s.Lead(l.now) < least {
		t.Errorf("lead %s: this snapshot may be served and kept for %s", l.s.Lead(l.now), least)
	}
	// The same in two revisions.
	l = lowered(t, func(c *Config) { c.OutageBudget = dur("8h") })
	floor := *l.s.Floor
	l.revise(func(c *Config) { c.Rings[0].MaxTokenTTL = dur("10h") })
	l.commit()
	if f := l.s.Floor; f == nil || f.Span != floor.Span+dur("9h") || !f.Until.Equal(floor.Until.Add(9*time.Hour)) {
		t.Errorf("floor %+v after %+v", f, floor)
	}
	if least := l.s.ServeUntil().Sub(l.now) + time.Duration(l.s.Config.ConsumerCache); l.s.Lead(l.now) < least {
		t.Errorf("lead %s: this snapshot may be served and kept for %s", l.s.Lead(l.now), least)
	}
}

// TestLoweredTwice: the first floor is not forgotten by the second.
func TestLoweredTwice(t *testing.T) {
	l := lowered(t, func(c *Config) { c.OutageBudget = dur("8h") })
	l.wait(time.Hour)
	l.revise(func(c *Config) { c.OutageBudget = dur("4h") })
	l.commit()
	if got := l.s.Lead(l.now); got != time.Duration(dur("28h16m40s")) {
		t.Errorf("lead %s", got)
	}
	if want := l.now.Add(time.Duration(dur("28h16m50s"))); !l.s.Floor.Until.Equal(want) {
		t.Errorf("until %v, want %v", l.s.Floor.Until, want)
	}
}

// TestLoweredSkewEntersLate: E counts in S and beside C.
func TestLoweredSkewEntersLate(t *testing.T) {
	l := lowered(t, func(c *Config) { c.ClockSkew = dur("1s") })
	if got := l.s.Lead(l.now); got < time.Duration(dur("28h16m40s")) {
		t.Errorf("lead %s", got)
	}
}

// TestRaisedValuesEnterAtOnce, and leave no floor.
func TestRaisedValuesEnterAtOnce(t *testing.T) {
	l := lowered(t, func(c *Config) { c.Rings[0].MaxTokenTTL = dur("3h") })
	if got := l.s.Lead(l.now); got != time.Duration(dur("30h16m40s")) || l.s.Floor != nil {
		t.Errorf("lead %s, floor %+v", got, l.s.Floor)
	}
}

// TestLoweredTEntersWithTheLastKey that could sign so long, a floor later.
func TestLoweredTEntersWithTheLastKey(t *testing.T) {
	l := lowered(t, func(c *Config) { c.Rings[0].MaxTokenTTL = dur("10m") })
	if got := l.s.Lead(l.now); got != time.Duration(dur("28h16m40s")) {
		t.Errorf("lead %s: the active key may sign for an hour", got)
	}
	var floored time.Time
	for range 60 { // four rotations at most
		l.until(l.now.Add(12 * time.Hour))
		if l.s.Floor != nil && floored.IsZero() {
			floored = l.s.Floor.Until
		}
		if !floored.IsZero() && !l.now.Before(floored) {
			break
		}
	}
	if floored.IsZero() {
		t.Fatal("the closing of the last long-lived key left no floor")
	}
	// 28h16m40s less 50 minutes
	if got := l.s.Lead(l.now); got != time.Duration(dur("27h26m40s")) {
		t.Errorf("lead %s at the end", got)
	}
}

func TestLeaseFault(t *testing.T) {
	s := &Snapshot{Config: bucketConfig(), Lease: at(0).Add(27*time.Hour + 20*time.Second)} // B + R + sync + E
	for _, tc := range []struct {
		now  time.Time
		want bool
	}{{at(0), false}, {at(0).Add(-time.Nanosecond), true}, {at(1), false}, {at(-3600), true}} {
		if got := s.LeaseFault(tc.now); got != tc.want {
			t.Errorf("at %v: %v", tc.now, got)
		}
	}
	s.Floor = &Floor{Span: dur("40h"), Until: at(0)}
	if s.LeaseFault(at(-3600)) {
		t.Error("a lease of before the floor counts as a fault")
	}
	s.Floor.Until = at(-3600)
	if !s.LeaseFault(at(-3600)) {
		t.Error("a floor that is over still counts")
	}
}
