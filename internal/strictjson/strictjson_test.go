package strictjson

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestUnmarshalRefuses(t *testing.T) {
	type doc struct {
		Alg  string `json:"alg"`
		N    int64  `json:"n"`
		Tags []any  `json:"tags"`
	}
	for name, tc := range map[string]struct{ in, want string }{
		"duplicate name":  {`{"alg":"a","alg":"b"}`, `"/alg" appears twice`},
		"case twin":       {`{"alg":"a","ALG":"none"}`, `unknown member "/ALG"`},
		"unknown name":    {`{"x":1}`, `unknown member "/x"`},
		"trailing data":   {`{"alg":"a"} {}`, "data after the JSON value"},
		"empty":           {``, "empty document"},
		"only spaces":     {"  ", "empty document"},
		"bad UTF-8":       {"{\"alg\":\"\xff\"}", "not valid JSON"},
		"too deep":        {`{"tags":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`, "nests deeper"},
		"wrong type":      {`{"alg":1}`, `"/alg" cannot be a number`},
		"fraction":        {`{"n":1.5}`, `"/n" cannot be a number`},
		"integer too big": {`{"n":99999999999999999999}`, `"/n" cannot be a number`},
		"unterminated":    {`{"alg":"a"`, "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			var d doc
			err := Unmarshal([]byte(tc.in), &d)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Unmarshal(%q) = %v, want an error with %q", tc.in, err, tc.want)
			}
		})
	}
}

func TestUnmarshalTakes(t *testing.T) {
	var d struct {
		Alg string `json:"alg"`
	}
	if err := Unmarshal([]byte(" {\"alg\":\"ES256\"}\n"), &d); err != nil || d.Alg != "ES256" {
		t.Errorf("Unmarshal = %v, alg %q", err, d.Alg)
	}
	if err := UnmarshalOpen([]byte(`{"alg":"ES384","kid":"k"}`), &d); err != nil || d.Alg != "ES384" {
		t.Errorf("UnmarshalOpen = %v, alg %q", err, d.Alg)
	}
	if err := UnmarshalOpen([]byte(`{"alg":"a","alg":"b"}`), &d); err == nil {
		t.Error("UnmarshalOpen took a duplicate name")
	}
}

// TestMaxDepth: the deepest that is taken, and one more.
func TestMaxDepth(t *testing.T) {
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if err := Check(nested(MaxDepth)); err != nil {
		t.Errorf("%d deep: %v", MaxDepth, err)
	}
	if err := Check(nested(17)); !errors.Is(err, ErrTooDeep) {
		t.Errorf("17 deep: %v", err)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"b":null}]}`))
	f.Add([]byte(`[[[[]]]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v jsontext.Value // any would not take a number beyond float64
		if Check(data) == nil && UnmarshalOpen(data, &v) != nil {
			t.Errorf("Check takes %q, UnmarshalOpen does not", data)
		}
	})
}

func TestElements(t *testing.T) {
	list, err := Elements([]byte(` [ {"a":[1,2]}, "x" ,3 ] `), 3)
	if err != nil || len(list) != 3 || string(list[0]) != `{"a":[1,2]}` || string(list[1]) != `"x"` || string(list[2]) != "3" {
		t.Errorf("Elements = %q, %v", list, err)
	}
	if list, err := Elements([]byte(`[]`), 0); err != nil || len(list) != 0 {
		t.Errorf("Elements of none = %q, %v", list, err)
	}
	if _, err := Elements([]byte(`[1,2,3]`), 2); !errors.Is(err, ErrTooMany) {
		t.Errorf("Elements of too many = %v", err)
	}
	for _, bad := range []string{``, `{}`, `1`, `[1`, `[1 2]`, `[1,]`} {
		if list, err := Elements([]byte(bad), 9); err == nil {
			t.Errorf("Elements(%q) = %q", bad, list)
		}
	}
}

// TestMaxMembers: an object that would take much memory to read is not read to its end.
func TestMaxMembers(t *testing.T) {
	object := func(members int) []byte {
		var b strings.Builder
		for i := range members {
			fmt.Fprintf(&b, `,"%x":[{"a":1}]`, i)
		}
		return []byte(`[{"in":{` + strings.TrimPrefix(b.String(), ",") + `}}]`)
	}
	if err := Check(object(MaxMembers)); err != nil {
		t.Errorf("Check of %d members = %v", MaxMembers, err)
	}
	if err := Check(object(MaxMembers + 1)); err == nil || !strings.Contains(err.Error(), "more than 10000 members") {
		t.Errorf("Check of one more = %v", err)
	}
	if err := Check([]byte("[" + strings.Repeat("1,", 3*MaxMembers) + "1]")); err != nil {
		t.Errorf("Check of a long array = %v", err)
	}
}

func TestParts(t *testing.T) {
	for value, want := range map[string][]Part{
		`1.0`:   {{Number, "1.0"}},
		`"a"`:   nil,
		`null`:  nil,
		`[]`:    nil,
		` {} `:  {{Kind: Begin}, {Kind: End}},
		`["a"]`: nil,
		`[true,{"\u0061":"b","c":["d",-1e400,{"e":{}}],"f":2}]`: {
			{Kind: Begin}, {Name, "a"}, {Name, "c"}, {Number, "-1e400"}, {Kind: Begin}, {Name, "e"}, {Kind: Begin}, {Kind: End}, {Kind: End},
			{Name, "f"}, {Number, "2"}, {Kind: End},
		},
	} {
		if got := slices.Collect(Parts([]byte(value))); !slices.Equal(got, want) {
			t.Errorf("Parts(%s) = %v, want %v", value, got, want)
		}
	}
	for part := range Parts([]byte(`[1,2]`)) {
		if part.Text == "2" {
			t.Error("it goes on after the end of the loop")
		}
		break
	}
}
