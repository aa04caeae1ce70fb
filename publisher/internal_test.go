package publisher

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/keyturn/keyturn/keyring"
)

func TestCacheFor(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		maxAge, left, want time.Duration // left 0: nothing changes
	}{
		"nothing changes":         {5 * time.Minute, 0, 5 * time.Minute},
		"a withdrawal far ahead":  {5 * time.Minute, time.Hour, 5 * time.Minute},
		"a withdrawal soon":       {5 * time.Minute, 2 * time.Minute, 2 * time.Minute},
		"a withdrawal very soon":  {5 * time.Minute, time.Second, 30 * time.Second},
		"a withdrawal just past":  {5 * time.Minute, -time.Second, 30 * time.Second},
		"max-age below the floor": {10 * time.Second, time.Second, 10 * time.Second},
		"no max-age":              {0, time.Second, 0},
	} {
		p := &page{maxAge: tc.maxAge}
		if tc.left != 0 {
			p.changes = now.Add(tc.left)
		}
		if got := p.cacheFor(now); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestMatches(t *testing.T) {
	const tag = `"abc"`
	for header, want := range map[string]bool{
		tag: true, `W/"abc"`: true, `"x", "abc"`: true, `"x" ,W/"abc" `: true, "*": true,
		"": false, "abc": false, `"x"`: false, `"abcd"`: false, `"a,bc"`: false, `w/"abc"`: false,
	} {
		if got := matches([]string{header}, tag); got != want {
			t.Errorf("If-None-Match: %s = %v", header, got)
		}
	}
	if matches(nil, tag) || !matches([]string{`"x"`, tag}, tag) {
		t.Error("several headers")
	}
}

// A row of failures waits longer and longer, never longer than it should, and
// never in step with others.
func TestDelay(t *testing.T) {
	for kind, longest := range map[keyring.TargetKind]time.Duration{
		keyring.TargetFile: 10 * time.Second, keyring.TargetHTTP: 10 * time.Second, keyring.TargetConfirm: time.Minute,
	} {
		tg := &target{cfg: &Config{Interval: 10 * time.Second}, conf: Target{Kind: kind}}
		if d := tg.delay(report{}, 0); d != 10*time.Second {
			t.Errorf("%s: %s without a failure", kind, d)
		}
		seen := map[time.Duration]bool{}
		for failures := 1; failures < 100; failures++ {
			base := min(longest, 625*time.Millisecond<<min(failures-1, 10))
			d := tg.delay(report{}, failures)
			if d < base/2 || d > base {
				t.Errorf("%s: %s after %d failures, want %s to %s", kind, d, failures, base/2, base)
			}
			seen[d] = true
		}
		if len(seen) < 50 {
			t.Errorf("%s: no jitter", kind)
		}
	}
}

func TestDelayEndsAtDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tg := &target{cfg: &Config{Interval: 10 * time.Second}}
		now := time.Now()
		for _, r := range []report{{changes: now.Add(3 * time.Second)}, {serveUntil: now.Add(3 * time.Second)}, {changes: now.Add(3 * time.Second), serveUntil: now.Add(time.Hour)}} {
			if d := tg.delay(r, 0); d < 3*time.Second || d > 3*time.Second+10*time.Millisecond {
				t.Errorf("%s, want just over 3s", d)
			}
		}
		if d := tg.delay(report{changes: now, serveUntil: now.Add(-time.Hour)}, 0); d != 10*time.Second {
			t.Errorf("%s after what is past", d)
		}
	})
}

// told is a place that finds what it is told to find.
type told struct{ set atomic.Pointer[[]keyring.JWK] }

func (p *told) step(_ context.Context, j job) report {
	r := report{readAt: j.now}
	if set := p.set.Load(); set != nil {
		r.set = *set
	}
	return r
}

// A confirm URL that lags is normal for as long as caches may keep a set, and
// an alarm afterwards.
func TestConfirmThatStaysBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := keyring.JWK{Kty: "EC", Alg: keyring.ES256, Kid: "k"}
		place := &told{}
		is := &issuer{}
		tg := &target{
			cfg:        &Config{Interval: 10 * time.Second, Wake: func() {}, Observe: func(string, string, bool) {}, Drifted: func(string, string) {}, Read: func(string) (*keyring.Snapshot, time.Time) { return nil, time.Time{} }},
			issuerName: "main", issuer: is, conf: Target{Name: "cdn", Kind: keyring.TargetConfirm}, place: place,
			kick: make(chan struct{}, 1), log: slog.New(slog.DiscardHandler),
		}
		is.latest.Store(&keyring.Snapshot{
			Lineage: "l", Generation: 1, Keys: []keyring.Key{{JWK: key}},
			Config: keyring.Config{ConsumerCache: keyring.Duration(15 * time.Minute)},
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go tg.run(ctx)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if a := tg.alarms(); len(a) > 0 || !slices.Equal(tg.status().Behind, []string{"k"}) {
			t.Errorf("within consumer_cache: %+v, behind %q", a, tg.status().Behind)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		a := tg.alarms()
		if len(a) != 1 || a[0].Code != CodeConfirmBehind || a[0].Fatal || !strings.Contains(a[0].Message, "lacked k since") {
			t.Errorf("past consumer_cache: %+v", a)
		}
		place.set.Store(&[]keyring.JWK{key})
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if a := tg.alarms(); len(a) > 0 {
			t.Errorf("after it caught up: %+v", a)
		}
	})
}

func TestSideGolden(t *testing.T) {
	s := &side{Format: 1, Issuer: "main", Lineage: "l", Sets: []sideSet{
		{7, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), digest([]byte("seven"))},
		{8, time.Date(2026, 1, 2, 4, 4, 5, 600, time.UTC), digest([]byte("eight"))},
	}}
	const want = `{
  "format": 1,
  "issuer": "main",
  "lineage": "l",
  "sets": [
    {
      "generation": 7,
      "serve_until": "2026-01-02T03:04:05Z",
      "sha256": "3ba8d02b16fd2a01c1a8ba1a1f036d7ce386ed953696fa57331c2ac48a80b255"
    },
    {
      "generation": 8,
      "serve_until": "2026-01-02T04:04:05.0000006Z",
      "sha256": "c195d2d8756234367242ba7616c5c60369bc25ced2dcb5b92808d31b58ef217a"
    }
  ]
}
`
	got, err := encodeSide(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	back, err := decodeSide([]byte(want))
	if diff := cmp.Diff(s, back); diff != "" || err != nil {
		t.Errorf("read back: %v, -want +got:\n%s", err, diff)
	}
}

func TestSideRefuses(t *testing.T) {
	good, err := encodeSide(&side{Format: 1, Issuer: "main", Lineage: "l", Sets: []sideSet{{7, time.Unix(1, 0), digest(nil)}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"no issuer":     {`"main"`, `""`},
		"no lineage":    {`"l"`, `""`},
		"format 0":      {`"format": 1`, `"format": 0`},
		"format 2":      {`"format": 1`, `"format": 2`},
		"generation 0":  {`7`, `0`},
		"negative":      {`7`, `-7`},
		"half a digest": {digest(nil), "ab"},
		"no digest":     {digest(nil), strings.Repeat("x", 64)},
		"no time":       {`"serve_until"`, `"other"`},
		"a twin":        {`"format": 1`, `"format": 1, "format": 1`},
	} {
		doc := strings.Replace(string(good), change[0], change[1], 1)
		if s, err := decodeSide([]byte(doc)); err == nil {
			t.Errorf("%s: taken as %+v", name, s)
		}
	}
	three := &side{Format: 1, Issuer: "main", Lineage: "l", Sets: make([]sideSet, 3)}
	for i := range three.Sets {
		three.Sets[i] = sideSet{7, time.Unix(1, 0), digest(nil)}
	}
	doc, err := encodeSide(three)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeSide(doc); err == nil {
		t.Error("three sets were taken")
	}
}

func FuzzDecodeSide(f *testing.F) {
	f.Add([]byte(`{"format":1,"issuer":"i","lineage":"l","sets":[{"generation":1,"serve_until":"2026-01-02T03:04:05Z","sha256":"` + digest(nil) + `"}]}`))
	f.Add([]byte(`{"format":1,"issuer":"i","lineage":"l","sets":[{},{}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := decodeSide(doc)
		if err != nil {
			return
		}
		out, err := encodeSide(s)
		if err != nil {
			t.Fatalf("taken and not to be written: %v", err)
		}
		again, err := decodeSide(out)
		if err != nil {
			t.Fatalf("written and not to be read: %v\n%s", err, out)
		}
		if len(out) > maxSide && len(s.Issuer)+len(s.Lineage) < 200 {
			t.Errorf("%d bytes", len(out))
		}
		if n := again.newest(); !n.equal(s.newest()) || again.holding(n.SHA256) == nil {
			t.Errorf("read %+v, was %+v", again, s)
		}
	})
}

func FuzzParseSet(f *testing.F) {
	ours := keyring.JWK{Kty: "EC", Use: "sig", Alg: keyring.ES256, Kid: "k", Crv: "P-256", X: "AA", Y: "AQ"}
	doc, err := json.Marshal(keyring.JWKSet{Keys: []keyring.JWK{ours}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add(bytes.Replace(doc, []byte(`"kid":"k"`), []byte(`"kid":"k","kid":"l"`), 1))
	f.Add([]byte(`{"keys":[{"kid":"k"},{"kid":"k","x":"AA"}]}`))
	f.Add([]byte(`{"keys":[null,{}]}`))
	s := &keyring.Snapshot{Keys: []keyring.Key{{JWK: ours}}}
	f.Fuzz(func(t *testing.T, doc []byte) {
		set, err := parseSet(doc)
		if err != nil {
			return
		}
		// A naive reader of the same document has to agree: every key of our
		// kid is ours, and there is one.
		var found, other bool
		for _, k := range set {
			found = found || k == ours
			other = other || (k.Kid == ours.Kid && k != ours)
		}
		if got := len(shown(s, set, keyring.ViewAll)) == 1; got != (found && !other) {
			t.Errorf("shown %v, found %v, another of the kid %v: %s", got, found, other, doc)
		}
	})
}

// What is taken over can be published, and a strict reader finds nothing private in it.
func FuzzParseForeign(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"AA","y":"AQ"},{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"OKP","kid":"k","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","x5c":["AA=="]}]}`))
	f.Add([]byte(`{"keys":[null,{"d":null},{"key_ops":[]}]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		keys, err := parseForeign(doc)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("not one line: %q", err)
			}
			return
		}
		s := &keyring.Snapshot{}
		for _, k := range keys {
			s.Adopted = append(s.Adopted, keyring.Adopted{JWK: k, Until: time.Unix(1, 0)})
		}
		set, err := keyring.Set(s, time.Unix(0, 0), keyring.ViewAll)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseSet(set.Body)
		if err != nil || len(back) != len(keys) || len(shown(s, back, keyring.ViewAll)) != len(keys) {
			t.Errorf("%d keys, read back %d (%v) from %s", len(keys), len(back), err, set.Body)
		}
	})
}
