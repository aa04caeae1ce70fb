package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// golden is a manifest of schema 1 with every member that it began with. It is
// never made anew: whatever this code becomes, it reads and writes these bytes.
func golden(t testing.TB) []byte { return goldenFile(t, "manifest-v1.json") }

// goldenLater has the members that came later: store_version, forced, and
// what adoption and keyturn accept write.
func goldenLater(t testing.TB) []byte { return goldenFile(t, "manifest-v1-emergency.json") }

func goldenFile(t testing.TB, name string) []byte {
	t.Helper()
	doc, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func decoded(t testing.TB, doc []byte) *Snapshot {
	t.Helper()
	s, err := Decode(doc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGoldenManifestWithLaterMembers(t *testing.T) {
	doc := goldenLater(t)
	s := decoded(t, doc)
	again, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(doc), string(again)); diff != "" {
		t.Errorf("it is written with other bytes (-want +got):\n%s", diff)
	}
	if s.StoreVersion != 44 || s.Frozen.StoreVersion != 61 || s.Keys[0].Forced.IsZero() || s.Adopted[0].Revoked.IsZero() || s.Config.Targets[0].AdoptUntil.IsZero() {
		t.Errorf("misread: %+v", s)
	}
}

func TestGoldenManifest(t *testing.T) {
	doc := golden(t)
	s := decoded(t, doc)
	again, err := Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(doc), string(again)); diff != "" {
		t.Errorf("the golden manifest is written with other bytes (-want +got):\n%s", diff)
	}
	// What it says, where a misread member would do harm.
	if s.Generation != 42 || s.Config.Revision != 3 || time.Duration(s.Config.OutageBudget) != 24*time.Hour {
		t.Errorf("generation %d, revision %d, outage_budget %s", s.Generation, s.Config.Revision, s.Config.OutageBudget)
	}
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if want := at("2026-03-02T06:00:00Z"); !s.Lease.Equal(want) {
		t.Errorf("lease %v", s.Lease)
	}
	var states []State
	for i := range s.Keys {
		states = append(states, s.Keys[i].State(at("2026-03-01T04:00:00Z")))
	}
	want := []State{Withdrawn, Retired, Active, Standby, Revoked, Active, Standby}
	if diff := cmp.Diff(want, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

// TestGoldenManifestIsFull: a member that the golden manifest leaves out could
// change its name or its form unnoticed.
func TestGoldenManifestIsFull(t *testing.T) {
	filled := map[string]bool{}
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			filled[path] = filled[path] || !v.IsZero()
		case v.Kind() == reflect.Pointer:
			if filled[path] = filled[path] || !v.IsNil(); !v.IsNil() {
				walk(path, v.Elem())
			}
		case v.Kind() == reflect.Struct:
			if v.Type() == reflect.TypeFor[JWK]() {
				path = "JWK" // no key has the members of all types
			}
			for i := range v.NumField() {
				if f := v.Type().Field(i); f.IsExported() {
					walk(path+"."+f.Name, v.Field(i))
				}
			}
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				walk(path, v.Index(i))
			}
			filled[path] = filled[path] || v.Len() > 0
		default:
			filled[path] = filled[path] || !v.IsZero()
		}
	}
	walk("Snapshot", reflect.ValueOf(*decoded(t, golden(t))))
	walk("Snapshot", reflect.ValueOf(*decoded(t, goldenLater(t))))
	if len(filled) < 60 {
		t.Errorf("only %d fields were looked at", len(filled))
	}
	for path, ok := range filled {
		if !ok {
			t.Errorf("%s is empty everywhere in the golden manifest", path)
		}
	}
}

// insert writes a member at the end of every object of the document but for
// those that stand under one of the given names.
func insert(doc []byte, member string, but ...string) []byte {
	var out bytes.Buffer
	var under []string // the name under which each open object or array stands
	var name, last string
	for i := 0; i < len(doc); i++ {
		switch c := doc[i]; c {
		case '"':
			end := i + 1
			for ; doc[end] != '"'; end++ {
				if doc[end] == '\\' {
					end++
				}
			}
			last = string(doc[i+1 : end])
			out.Write(doc[i:end])
			i = end
		case ':':
			name = last
		case '{', '[':
			under = append(under, name)
		case '}', ']':
			standsUnder := under[len(under)-1]
			under = under[:len(under)-1]
			skip := c == ']'
			for _, b := range but {
				skip = skip || standsUnder == b
			}
			if !skip {
				out.WriteString("," + member)
			}
			if len(under) > 0 {
				name = under[len(under)-1]
			}
		}
		out.WriteByte(doc[i])
	}
	return out.Bytes()
}

// TestUnknownMembersSurvive: what a newer keyturn of the same schema adds, at
// whatever level, an older one must not drop.
func TestUnknownMembersSurvive(t *testing.T) {
	const member = `"zz_new":{"a":[1,1.0,12345678901234567890],"b":null,"ü":"\u003c"}`
	doc := insert(golden(t), member, "jwk", "confirmed")
	if !json.Valid(doc) {
		t.Fatalf("the test writes bad JSON: %s", doc)
	}
	// snapshot, frozen, config, 2 targets, 2 rings, floor, 7 keys, adopted, orphan
	if n := bytes.Count(doc, []byte("zz_new")); n != 17 {
		t.Fatalf("the member stands in %d objects", n)
	}
	s := decoded(t, doc)
	again, err := Encode(s.Clone())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(doc), string(again)); diff != "" {
		t.Errorf("a rewrite changed it (-want +got):\n%s", diff)
	}
	if s.extra["zz_new"] == nil || s.Config.Rings[1].extra["zz_new"] == nil {
		t.Error("the members were not read")
	}
}

// TestUnknownMembersSurviveAdoption: a revision replaces the configuration and
// keeps what only a newer keyturn knows.
func TestUnknownMembersSurviveAdoption(t *testing.T) {
	file := bucketConfig()
	l := settled(t, file)
	doc, err := Encode(l.s)
	if err != nil {
		t.Fatal(err)
	}
	l.s = decoded(t, insert(doc, `"zz_new":1`, "jwk", "confirmed"))
	l.file.Revision, l.file.ConsumerCache = 2, dur("20m")
	wantEvents(t, l.commit(), ConfigAdopted)
	doc, err = Encode(l.s)
	if err != nil {
		t.Fatal(err)
	}
	// snapshot, config, target, ring, 2 keys
	if n := bytes.Count(doc, []byte("zz_new")); n != 6 {
		t.Errorf("the member stands in %d objects of 6 after a revision: %s", n, doc)
	}
}

func TestUnknownMembersAreSorted(t *testing.T) {
	doc := bytes.Replace(golden(t), []byte(`{"schema":1,`), []byte(`{"zz":1,"aa":{"x":[ ]},"":"empty","schema":1,`), 1)
	out, err := Encode(decoded(t, doc))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(out, []byte(`,"":"empty","aa":{"x":[]},"zz":1}`)) {
		t.Errorf("ends with %s", out[len(out)-60:])
	}
}

func TestNewerSchema(t *testing.T) {
	newer := bytes.Replace(golden(t), []byte(`{"schema":1,`), []byte(`{"schema":2,"novel":true,`), 1)
	s, err := Decode(newer)
	if !errors.Is(err, ErrSchema) || errors.Is(err, ErrCorrupt) {
		t.Fatalf("got %v, want ErrSchema", err)
	}
	if s == nil || s.Schema != 2 || s.Active("web") == nil {
		t.Fatalf("what can be read of a newer manifest is not there: %+v", s)
	}
	if _, err := Encode(s); !errors.Is(err, ErrSchema) {
		t.Errorf("Encode wrote a manifest of another schema: %v", err)
	}
	if out := Plan(s, Input{Now: epoch, File: bucketConfig()}); out.Next != nil || out.Destroy != nil || out.Create != nil {
		t.Errorf("Plan acts on a newer schema: %+v", out)
	}
	for name, doc := range map[string][]byte{
		"a member of another type":   bytes.Replace(newer, []byte(`"keys":[`), []byte(`"keys":{"a":1},"k":[`), 1),
		"what schema 1 would not be": []byte(`{"schema":3,"lineage":"a"}`),
	} {
		if s, err := Decode(doc); !errors.Is(err, ErrSchema) || s != nil {
			t.Errorf("%s: got %v, %v, want ErrSchema alone", name, s, err)
		}
	}
}

func TestCorruptManifests(t *testing.T) {
	doc := string(golden(t))
	replace := func(old, new string) string {
		if !strings.Contains(doc, old) {
			t.Fatalf("the golden manifest does not hold %s", old)
		}
		return strings.Replace(doc, old, new, 1)
	}
	change := func(f func(*Snapshot)) string {
		s := decoded(t, []byte(doc))
		f(s)
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, tc := range []struct{ name, doc, want string }{
		{"nothing", "", "unexpected end"},
		{"cut off", doc[:len(doc)/2], "unexpected end"},
		{"trailing data", doc + "{}", "after top-level value"},
		{"null", "null", "missing"},
		{"an array", "[]", "cannot unmarshal"},
		{"an empty object", "{}", "schema, lineage, generation or issuer is missing"},
		{"schema 0", replace(`"schema":1`, `"schema":0`), "missing"},
		{"schema as text", replace(`"schema":1`, `"schema":"1"`), "cannot unmarshal"},
		{"no lineage", replace(`"lineage":"QZ7L3JXKPMVWNT5R2YB4CDGHFA","generation":42`, `"lineage":"","generation":42`), "missing"},
		{"generation 0", replace(`"generation":42`, `"generation":0`), "missing"},
		{"negative generation", replace(`"generation":42`, `"generation":-1`), "cannot unmarshal"},
		{"no issuer", replace(`"config":{"name":"main"`, `"config":{"name":""`), "missing"},
		{"a duration without a unit", replace(`"clock_skew":"10s"`, `"clock_skew":"10"`), "missing unit"},
		{"a duration as number", replace(`"clock_skew":"10s"`, `"clock_skew":10`), "cannot unmarshal"},
		{"a time that is none", replace(`"lease":"2026`, `"lease":"x2026`), "cannot parse"},
		{"a member in other letters", replace(`"lease":`, `"Lease":`), `member "Lease" is not spelled "lease"`},
		{"a twin in other letters", replace(`"lease":`, `"LEASE":"2036-03-02T06:00:00Z","lease":`), `member "LEASE"`},
		{"a twin in a key", replace(`"ring":"web"`, `"ring":"web","Ring":"partners"`), `member "Ring"`},
		{"a kid twice", change(func(s *Snapshot) { s.Keys[3].JWK = s.Keys[2].JWK }), "appears twice"},
		{"a kid that is not the key's", change(func(s *Snapshot) { s.Keys[3].JWK.Kid = "x" }), `JWK "x"`},
		{"a key without a JWK", change(func(s *Snapshot) { s.Keys[3].JWK = JWK{} }), "JWK"},
		{"two active keys", change(func(s *Snapshot) { s.Keys[3].Activated = epoch }), "two active keys"},
		{"retired without sign_until", change(func(s *Snapshot) { s.Keys[1].SignUntil = time.Time{} }), "without sign_until"},
		{"closed and active", change(func(s *Snapshot) { s.Keys[2].Closed = epoch }), "could still sign"},
		{"closed and standby", change(func(s *Snapshot) { s.Keys[3].Closed = epoch }), "could still sign"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Decode([]byte(tc.doc))
			if !errors.Is(err, ErrCorrupt) || s != nil {
				t.Fatalf("got %v, %v, want ErrCorrupt alone", s, err)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error does not say %q: %v", tc.want, err)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for _, d := range []Duration{0, 1, dur("1ns"), dur("-1h"), dur("15m"), dur("24h0m0.5s"), 1<<63 - 1, -1 << 63} {
		doc, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var back Duration
		if err := json.Unmarshal(doc, &back); err != nil || back != d {
			t.Errorf("%d became %s and then %d: %v", d, doc, back, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	doc := golden(f)
	f.Add(doc)
	f.Add(insert(doc, `"zz_new":{"a":1.0}`, "jwk", "confirmed"))
	f.Add(bytes.Replace(doc, []byte(`"schema":1`), []byte(`"schema":2`), 1))
	f.Add([]byte(`{"schema":1,"lineage":"l","generation":1,"config":{"name":"n","targets":null,"rings":null},"keys":null}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		s, err := Decode(doc)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrSchema) {
				t.Fatalf("an error without its fact: %v", err)
			}
			if errors.Is(err, ErrCorrupt) && s != nil {
				t.Fatal("a corrupt manifest was handed out")
			}
			return
		}
		first, err := Encode(s)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, first)
		}
		second, err := Encode(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("writing it twice gives other bytes: %v\n%s\n%s", err, first, second)
		}
		// Whatever a manifest says, deciding on it does not panic.
		if _, err := Set(s, epoch, ViewKubernetes); err != nil {
			t.Fatal(err)
		}
		Plan(s, Input{Now: epoch, File: bucketConfig(), NextRun: func(string, time.Time) time.Time { return epoch }})
	})
}
