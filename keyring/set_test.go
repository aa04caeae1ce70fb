package keyring

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// at4 is an hour after the golden manifest's last rotation.
var at4 = time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC)

func mustSet(t testing.TB, s *Snapshot, now time.Time, view View) Published {
	t.Helper()
	p, err := Set(s, now, view)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGoldenSet(t *testing.T) {
	s := decoded(t, golden(t))
	for _, tc := range []struct {
		view View
		file string
	}{{ViewAll, "jwks.json"}, {ViewKubernetes, "jwks-spiffe.json"}, {ViewSPIFFE, "jwks-spiffe.json"}} {
		want, err := os.ReadFile("testdata/" + tc.file)
		if err != nil {
			t.Fatal(err)
		}
		got := mustSet(t, s, at4, tc.view)
		if diff := cmp.Diff(string(want), string(got.Body)); diff != "" {
			t.Errorf("view %q (-want +got):\n%s", tc.view, diff)
		}
	}
}

// TestSetIsAsConsumersWantIt reads the bytes as a consumer would.
func TestSetIsAsConsumersWantIt(t *testing.T) {
	p := mustSet(t, decoded(t, golden(t)), at4, ViewAll)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(p.Body, &set); err != nil {
		t.Fatal(err)
	}
	public := map[string][]string{"EC": {"crv", "x", "y"}, "RSA": {"n", "e"}, "OKP": {"crv", "x"}}
	var kids []string
	for _, k := range set.Keys {
		kids = append(kids, k["kid"].(string))
		want := append([]string{"kty", "use", "alg", "kid"}, public[k["kty"].(string)]...)
		for name := range k {
			if !slices.Contains(want, name) {
				t.Errorf("key %v has member %q", k["kid"], name)
			}
		}
		if len(k) != len(want) {
			t.Errorf("key %v has %d members, want %q", k["kid"], len(k), want)
		}
	}
	if !slices.IsSorted(kids) || len(kids) != 6 {
		t.Errorf("kids %q are not sorted, or not all", kids)
	}
	if !slices.Equal(kids, p.Kids) {
		t.Errorf("Kids says %q, the body holds %q", p.Kids, kids)
	}
}

func TestSetIsByteStable(t *testing.T) {
	s := decoded(t, golden(t))
	want := mustSet(t, s, at4, ViewAll).Body
	for range 6 {
		s = s.Clone()
		s.Keys = append(s.Keys[1:], s.Keys[0])
		s.Generation++
		if got := mustSet(t, s, at4.Add(time.Second), ViewAll).Body; !bytes.Equal(got, want) {
			t.Fatalf("the order of the manifest shows in the set:\n%s\n%s", want, got)
		}
	}
}

func TestSetOfNobody(t *testing.T) {
	s := &Snapshot{}
	if s.Servable() {
		t.Error("an issuer that is being born has a set")
	}
	if got := string(mustSet(t, s, at4, ViewAll).Body); got != `{"keys":[]}`+"\n" {
		t.Errorf("got %s", got)
	}
	if !(&Snapshot{Keys: make([]Key, 1)}).Servable() || !(&Snapshot{Adopted: make([]Adopted, 1)}).Servable() {
		t.Error("a set with a key is not servable")
	}
}

// TestWithdrawalOnlyIfClosed: a key leaves the set by age only from a snapshot
// that shows it closed, and Changes says when.
func TestWithdrawalOnlyIfClosed(t *testing.T) {
	k := Key{JWK: testJWK(t, EdDSA, 0, 1), Activated: at(0), Retired: at(100), SignUntil: at(200), Tail: seconds(50)}
	s := &Snapshot{Keys: []Key{k}}
	for _, now := range []int{100, 249, 250, 100_000} {
		p := mustSet(t, s, at(now), ViewAll)
		if len(p.Kids) != 1 || !p.Changes.IsZero() {
			t.Errorf("not closed, %d: kids %q, changes %v", now, p.Kids, p.Changes)
		}
	}
	s.Keys[0].Closed = at(202)
	for _, tc := range []struct {
		now  int
		kids int
	}{{203, 1}, {249, 1}, {250, 0}, {100_000, 0}} {
		p := mustSet(t, s, at(tc.now), ViewAll)
		if len(p.Kids) != tc.kids {
			t.Errorf("closed, %d: kids %q, want %d", tc.now, p.Kids, tc.kids)
		}
		if want := at(250); tc.kids == 1 && !p.Changes.Equal(want) || tc.kids == 0 && !p.Changes.IsZero() {
			t.Errorf("closed, %d: changes %v", tc.now, p.Changes)
		}
	}
	s.Keys[0].Revoked = at(203)
	if p := mustSet(t, s, at(203), ViewAll); len(p.Kids) != 0 {
		t.Error("a revoked key is in the set")
	}
}

// TestChangesIsTheNearest, and the bytes are the same until then.
func TestChangesIsTheNearest(t *testing.T) {
	closed := func(n, until int) Key {
		return Key{JWK: testJWK(t, EdDSA, 0, n), Activated: at(0), Retired: at(1), SignUntil: at(until - 10), Closed: at(until - 9), Tail: seconds(10)}
	}
	foreign := JWK{Kty: "RSA", Use: "sig", Alg: RS256, Kid: "2011-04-29", N: rfc7638N, E: "AQAB"}
	s := &Snapshot{
		Keys:    []Key{closed(1, 400), closed(2, 300), {JWK: testJWK(t, EdDSA, 0, 3)}},
		Adopted: []Adopted{{JWK: foreign, Until: at(350)}},
	}
	now := at(0)
	for _, want := range []int{300, 350, 400} {
		p := mustSet(t, s, now, ViewAll)
		if !p.Changes.Equal(at(want)) {
			t.Fatalf("at %v the set changes at %v, want %v", now, p.Changes, at(want))
		}
		if before := mustSet(t, s, p.Changes.Add(-time.Nanosecond), ViewAll); !bytes.Equal(before.Body, p.Body) {
			t.Errorf("the set of %v changed before %v", now, p.Changes)
		}
		if after := mustSet(t, s, p.Changes, ViewAll); bytes.Equal(after.Body, p.Body) || len(after.Kids) != len(p.Kids)-1 {
			t.Errorf("the set of %v did not change at %v", now, p.Changes)
		}
		now = p.Changes
	}
	if p := mustSet(t, s, now, ViewAll); !p.Changes.IsZero() || len(p.Kids) != 1 {
		t.Errorf("at the end: %q, changes %v", p.Kids, p.Changes)
	}
	// What a view hides does not change it.
	if p := mustSet(t, s, at(0), ViewSPIFFE); !p.Changes.Equal(at(350)) || !slices.Equal(p.Kids, []string{"2011-04-29"}) {
		t.Errorf("view: %q, changes %v", p.Kids, p.Changes)
	}
}

func TestAdoptedKeys(t *testing.T) {
	own := testJWK(t, ES256, 0, 1)
	foreign := JWK{Kty: "RSA", Use: "sig", Alg: RS256, Kid: "2011-04-29", N: rfc7638N, E: "AQAB"}
	s := &Snapshot{Keys: []Key{{JWK: own}}, Adopted: []Adopted{{JWK: foreign, Until: at(10)}, {JWK: own, Until: at(10)}}}
	if p := mustSet(t, s, at(9), ViewAll); len(p.Kids) != 2 || bytes.Count(p.Body, []byte(own.Kid)) != 1 {
		t.Errorf("adopted, and one of them ours: %s", p.Body)
	}
	if p := mustSet(t, s, at(10), ViewAll); !slices.Equal(p.Kids, []string{own.Kid}) {
		t.Errorf("after adopt_until: %q", p.Kids)
	}
}

func TestViews(t *testing.T) {
	for _, tc := range []struct {
		view View
		alg  Algorithm
		want bool
	}{
		{ViewAll, EdDSA, true}, {ViewAll, ES512, true}, {ViewKubernetes, EdDSA, false}, {ViewKubernetes, RS256, true},
		{ViewSPIFFE, EdDSA, false}, {ViewSPIFFE, ES384, true}, {ViewSPIFFE, PS256, true},
	} {
		if got := tc.view.Shows(tc.alg); got != tc.want {
			t.Errorf("view %q shows %s: %v", tc.view, tc.alg, got)
		}
	}
	for _, v := range []View{ViewAll, ViewKubernetes, ViewSPIFFE} {
		if err := v.Check(); err != nil {
			t.Error(err)
		}
	}
	if err := View("k8s").Check(); err == nil || err.Error() != `view "k8s": use "kubernetes" or "spiffe", or leave it out for every key` {
		t.Errorf("got %v", err)
	}
}
