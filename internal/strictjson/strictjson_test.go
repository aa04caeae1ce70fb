package strictjson

import (
	"strings"
	"testing"
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

func FuzzCheck(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,{"b":null}]}`))
	f.Add([]byte(`[[[[]]]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if Check(data) == nil && UnmarshalOpen(data, &v) != nil {
			t.Errorf("Check takes %q, UnmarshalOpen does not", data)
		}
	})
}
