package strictyaml

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// sheet has a field of every kind.
type sheet struct {
	From   string         `yaml:"-"`
	Seen   map[string]int `yaml:"-"`
	Name   string         `yaml:"name,omitempty"`
	On     bool           `yaml:"on,omitempty"`
	Count  int            `yaml:"count,omitempty"`
	Port   uint16         `yaml:"port,omitempty"`
	ID     *uint32        `yaml:"id,omitempty"`
	Wait   Duration       `yaml:"wait,omitempty"`
	Until  Date           `yaml:"until,omitempty"`
	Key    Secret         `yaml:"key,omitempty"`
	Texts  []string       `yaml:"texts,omitempty,flow"`
	Box    box            `yaml:"box,omitempty"`
	Claims []claim        `yaml:"claims,omitempty"`
}

type box struct {
	Width  int `yaml:"width,omitempty"`
	Height int `yaml:"height,omitempty"`
}

type claim struct {
	Title string `yaml:"title,omitempty"`
	Value JSON   `yaml:"value,omitempty"`
}

func TestDecode(t *testing.T) {
	var got sheet
	lines, faults, err := Decode([]byte(`# a comment
name: "5"
on: true
count: -3
port: 65535
id: 4294967295
wait: 1d12h
until: 2027-03-01
texts: [a,
  b]
box:
  height: 2

claims:
  - title: x
    value: {deep: [1]}
`), &got, nil)
	if err != nil || faults != nil {
		t.Fatalf("Decode = %v, %v", faults, err)
	}
	id := uint32(4294967295)
	want := sheet{
		Name: "5", On: true, Count: -3, Port: 65535, ID: &id, Wait: Duration(36 * time.Hour),
		Until: Date(time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)), Texts: []string{"a", "b"}, Box: box{Height: 2}, Claims: []claim{{"x", JSON(`{"deep":[1]}`)}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	wantLines := map[string]int{
		"name": 2, "on": 3, "count": 4, "port": 5, "id": 6, "wait": 7, "until": 8, "texts": 9, "texts[0]": 9, "texts[1]": 10, "box": 11, "box.height": 12,
		"claims": 14, "claims[0]": 15, "claims[0].title": 15, "claims[0].value": 16,
	}
	if diff := cmp.Diff(wantLines, lines); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// told is what is wrong with a document, a line each.
func told(t *testing.T, doc string) string {
	t.Helper()
	_, faults, err := Decode([]byte(doc), new(sheet), map[string]string{"box.depth": "not built yet", "claims[].key": "write value"})
	var broken *SyntaxError
	if errors.As(err, &broken) {
		return fmt.Sprintf("%d: %s", broken.Line, broken.Message)
	} else if err != nil {
		return err.Error()
	}
	var out []string
	for _, f := range faults {
		out = append(out, fmt.Sprintf("%d %s: %s", f.Line, f.Path, f.Message))
	}
	return strings.Join(out, "\n")
}

func TestFaults(t *testing.T) {
	const (
		empty   = "is empty: give it a value, or take it out for the default"
		whole   = " is not a whole number: write it in decimal, without quotes, leading zeros or a fraction"
		list    = "a list ([…], or lines that begin with -)"
		mapping = "a mapping (field: value)"
		fields  = "box, claims, count, id, key, name, on, port, texts, until, wait"
		unit    = "write a number with a unit, such as 90d, 1h30m, 10s or 500ms"
	)
	for doc, want := range map[string]string{
		"name: x\n":                   "",
		"name:\n":                     "1 name: " + empty,
		"name: ''":                    "1 name: " + empty,
		"name: ~":                     "1 name: " + empty,
		"box: null":                   "1 box: " + empty,
		"texts:\n  -\n  - a":          "2 texts[0]: " + empty,
		"name: 12":                    `1 name: 12 would be read as a number, and this is text: write it in quotes, "12"`,
		"name: true":                  `1 name: true would be read as true or false, and this is text: write it in quotes, "true"`,
		"name: 2020-01-01":            `1 name: 2020-01-01 would be read as a date, and this is text: write it in quotes, "2020-01-01"`,
		"texts: [a, 0660]":            `1 texts[1]: 0660 would be read as a number, and this is text: write it in quotes, "0660"`,
		"on: yes":                     `1 on: is "yes": write true or false`,
		"on: True":                    `1 on: is "True": write true or false`,
		`on: "true"`:                  `1 on: is "true": write true or false`,
		"on: 1":                       `1 on: is "1": write true or false`,
		"count: 010":                  `1 count: "010"` + whole,
		"count: 0x10":                 `1 count: "0x10"` + whole,
		"count: 1.0":                  `1 count: "1.0"` + whole,
		"count: 1e3":                  `1 count: "1e3"` + whole,
		"count: 1_000":                `1 count: "1_000"` + whole,
		"count: '1'":                  `1 count: "1"` + whole,
		"count: +1":                   `1 count: "+1"` + whole,
		"count: 99999999999999999999": "1 count: 99999999999999999999 is out of range: it goes to 9223372036854775807",
		"port: 65536":                 "1 port: 65536 is out of range: it goes from 0 to 65535",
		"port: -1":                    "1 port: -1 is out of range: it goes from 0 to 65535",
		"port: 32768":                 "",
		"id: 4294967296":              "1 id: 4294967296 is out of range: ids go from 0 to 4294967295",
		"id: -1":                      "1 id: -1 is out of range: ids go from 0 to 4294967295",
		"wait: 60":                    "1 wait: 60 has no unit: write 60s, or another of ms, s, m, h, d, w",
		"wait: 1.5":                   "1 wait: 1.5 has no unit: write 1.5s, or another of ms, s, m, h, d, w",
		"wait: 0":                     `1 wait: "0" is no time at all: leave the field out for its default`,
		"wait: 0s":                    `1 wait: "0s" is no time at all: leave the field out for its default`,
		"wait: -5":                    `1 wait: "-5" is negative: ` + unit,
		"wait: -5s":                   `1 wait: "-5s" is negative: ` + unit,
		"wait: -1d":                   `1 wait: "-1d" is negative: ` + unit,
		"wait: 0x10":                  `1 wait: "0x10" is not a duration: ` + unit,
		"wait: 1e3":                   `1 wait: "1e3" is not a duration: ` + unit,
		"wait: '60'":                  `1 wait: "60" is not a duration: ` + unit,
		"wait: 1.5d":                  `1 wait: "1.5d": w and d come first, in whole numbers, as in 1w2d12h`,
		"wait: 5h1d":                  `1 wait: "5h1d": w and d come first, in whole numbers, as in 1w2d12h`,
		"wait: 5d1w":                  `1 wait: "5d1w": w and d come first, in whole numbers, as in 1w2d12h`,
		"wait: 1d1x":                  `1 wait: "1d1x" is not a duration: ` + unit,
		"wait: 3M":                    `1 wait: "3M" is not a duration: ` + unit,
		"wait: 99999999999999h":       `1 wait: "99999999999999h" is not a duration: ` + unit,
		"wait: 106752d":               `1 wait: "106752d" is longer than 292 years: ` + unit,
		"wait: soon":                  `1 wait: "soon" is not a duration: ` + unit,
		"wait: [1s]":                  "1 wait: is " + list + ", must be a single value",
		"wait:":                       "1 wait: " + empty,
		"until: soon":                 `1 until: "soon" is not a date: write 2027-03-01, which begins at midnight UTC, or 2027-03-01T12:00:00Z`,
		"until: {a: b}":               "1 until: is " + mapping + ", must be a single value",
		"key: hvs.canary":             "1 key: a secret never stands in the file",
		"texts: a":                    "1 texts: is a single value, must be " + list,
		"texts: {a: b}":               "1 texts: is " + mapping + ", must be " + list,
		"box: [a]":                    "1 box: is " + list + ", must be " + mapping,
		"box: a":                      "1 box: is a single value, must be " + mapping,
		"- name: x":                   "1 : is " + list + ", must be " + mapping,
		"just text":                   "1 : is a single value, must be " + mapping,
		"texts: &a [x]":               "1 texts: &a is an anchor: take it out, aliases are not read",
		"texts: [&a x, *a]":           "1 texts[0]: &a is an anchor: take it out, aliases are not read\n1 texts[1]: *a is an alias: write the value out, so that a reader sees what holds here",
		"&a name: x":                  "1 : &a is an anchor: take it out, aliases are not read",
		"box: {<<: {width: 1}}":       "1 box: a merge with << is not read: write the fields out, so that a reader sees what holds here",
		"count: !!int 1":              "1 count: !!int is a tag: take it out, types follow from the field; write text that begins with ! in quotes",
		"name: !has(x)":               "1 name: !has(x) is a tag: take it out, types follow from the field; write text that begins with ! in quotes",
		"name: !%1b[31m x":            `1 name: "!\x1b[31m" is a tag: take it out, types follow from the field; write text that begins with ! in quotes`,
		"name: x\nname: y":            "2 name: appears twice, first in line 1: keep one",
		"1: x":                        `1 : the name of a field must be text; "1" is not: write it in quotes if it is meant`,
		"? [a]\n: x":                  "1 : the name of a field must be text, and this is " + list,
		"Name: x":                     "1 Name: unknown field: is it name?",
		"widht: 1":                    "1 widht: unknown field: the fields here are " + fields,
		"width: 1":                    "1 width: unknown field: it belongs under box",
		"box: {name: x}":              "1 box.name: unknown field: it belongs at the top of the file",
		"box: {colour: red}":          "1 box.colour: unknown field: the fields of box are height, width",
		"colour: red":                 "1 colour: unknown field: the fields here are " + fields,
		"from: x":                     "1 from: unknown field: the fields here are " + fields,
		"title: x":                    "1 title: unknown field: it belongs under claims[]",
		"\"na\\e[31mme\\n\": 1":       `1 "na\x1b[31mme\n": unknown field: the fields here are ` + fields,
		"on: true\n\ufeffname: x":     "2 \"\\ufeffname\": unknown field: is it name?",
		"box: {depth: 1}":             "1 box.depth: not built yet",
		"claims: [{key: 1}]":          "1 claims[0].key: write value",
		"claims: [{value: {a: 1, b: [2, {a: 010}], a: 3}}]": `1 claims[0].value.b[1].a: "010" is no JSON value as it stands: write it in quotes if it is text` + "\n" +
			"1 claims[0].value.a: appears twice, first in line 1: keep one",
		"claims: [{value: .inf}]":  `1 claims[0].value: ".inf" is no JSON value as it stands: write it in quotes if it is text`,
		"claims: [{value: &a 1}]":  "1 claims[0].value: &a is an anchor: take it out, aliases are not read",
		"claims: [{value: [*a]}]":  "1: is not YAML: unknown anchor 'a' referenced: aliases are not read: write the value out, in quotes if it begins with *",
		"claims:\n- value: {1: 2}": `2 claims[0].value: the name of a field must be text; "1" is not: write it in quotes if it is meant`,
		"wait: 5\non: no\n\ncolor:\nbox:\n  width: x": "1 wait: 5 has no unit: write 5s, or another of ms, s, m, h, d, w\n" +
			"2 on: is \"no\": write true or false\n4 color: unknown field: the fields here are " + fields + "\n6 box.width: \"x\"" + whole,
		"":             "is empty",
		"# nothing\n":  "is empty",
		"---\n":        "is empty",
		"null":         "is empty",
		"\n\n  \n":     "is empty",
		"\ufeffon: no": `1 on: is "no": write true or false`,
	} {
		if got := told(t, doc); got != want {
			t.Errorf("%q:\n%s\nwant\n%s", doc, got, want)
		}
	}
}

// What is no YAML is told at the line where a reader has to look, however its
// lines end, and with what most often leads there.
func TestSyntax(t *testing.T) {
	const sound = "name: x\ntexts: [a,\n  b]\nclaims:\n  - title: one\n    value: 1\n\n"
	for broken, want := range map[string]string{
		"  - title: two\n   value: 2\n":    "9: is not YAML: did not find expected '-' indicator: the line begins in a column",
		"   count: 2\n":                    "8: is not YAML: did not find expected '-' indicator: the line begins in a column",
		"box:\n  width: 1\n height: 2\n":   "10: is not YAML: did not find expected key: the line begins in a column",
		"on: true\n  count: 2\n":           "9: is not YAML: mapping values are not allowed in this context: is the line indented deeper",
		"on: a: b\n":                       "8: is not YAML: mapping values are not allowed in this context: is the line indented deeper",
		"box:\n\twidth: 1\n":               "9: is not YAML: found character that cannot start any token: indent with spaces",
		"box:\n  width: 1\n\theight: 2\n":  "10: is not YAML: found a tab character that violates indentation: indent with spaces",
		"name: @x\n":                       "8: is not YAML: found character that cannot start any token: indent with spaces, not with tabs; and write a value in quotes",
		"on:true\ncount: 1\n":              "8: is not YAML: could not find expected ':': write a colon and a plain space",
		"on:true\n":                        "8: is not YAML: could not find expected ':': write a colon and a plain space",
		"box:\n  width:1\n\n  height: 2\n": "9: is not YAML: could not find expected ':': write a colon and a plain space",
		"on: [a\ncount: 1\n":               "8: is not YAML: did not find expected ',' or ']': a list that begins with [, here or above",
		"on: {a: b\ncount: 1\n":            "8: is not YAML: did not find expected ',' or '}': a mapping that begins with {, here or above",
		"name: \"x\ncount: 1\n":            "8: is not YAML: found unexpected end of stream: a quote is opened here",
		"name: \"^\\d+$\"\n":               `8: is not YAML: found unknown escape character: in "…" a \ begins an escape: write the text in '…', or \\ for each \`,
		"name: \"\\xyz\"\n":                "8: is not YAML: did not find expected hexdecimal number: in",
		"name: |text\n":                    "8: is not YAML: did not find expected comment or line break: text begins on the line below",
		"name: !a!b c\n":                   "8: is not YAML: found undefined tag handle: write text that begins with ! in quotes",
		"name: \"x\n---\n":                 "9: is not YAML: found unexpected document indicator: a quote above the --- is not closed",
		"on: [a\n":                         "8: is not YAML: did not find expected ',' or ']'",
		"name: >0\n":                       "8: is not YAML: found an indentation indicator equal to 0: write text in quotes",
		"name: * 3 * * 0\n":                "8: is not YAML: did not find expected alphabetic or numeric character: write a value in quotes",
		"name: *all\n":                     "8: is not YAML: unknown anchor 'all' referenced: aliases are not read",
		"name: x\x00y\n":                   "8: is not YAML: control characters are not allowed: it holds a byte",
		"name: caf\xe9s: 1\n":              "8: is not YAML: invalid trailing UTF-8 octet: save the file as UTF-8",
		"texts: - a\n":                     "8: is not YAML: block sequence entries are not allowed in this context: a list begins on a line of its own",
		"---\nname: y\n":                   "8: has more than one YAML document: keep one, without --- between",
		"---\n":                            "8: has more than one YAML document",
		"--- {\n":                          "8: has more than one YAML document",
	} {
		for ending, doc := range map[string]string{"LF": sound + broken, "CRLF": strings.ReplaceAll(sound+broken, "\n", "\r\n"), "no end": strings.TrimSuffix(sound+broken, "\n")} {
			got := told(t, doc+"")
			if !strings.HasPrefix(got, want) {
				t.Errorf("%q, %s:\n%s\nwant\n%s", broken, ending, got, want)
			}
		}
	}
	for doc, want := range map[string]string{
		"name:x\ncount: 1\n":                        "1: is not YAML: could not find expected ':': write a colon and a plain space",
		"\n# here\nname:\u00a0x\n\n# and\non: true": "3: is not YAML: could not find expected ':': write a colon and a plain space",
		"name = x\ncount: 1\n":                      "1: is not YAML: could not find expected ':': write a colon and a plain space",
		"texts:\n- a\n  on: true\n":                 "3: is not YAML: mapping values are not allowed",
		"%YAML 1.2\n---\nname: x\n":                 "1: is not YAML: found incompatible YAML document: take the line with %YAML out",
		"[":                                         "1: is not YAML: did not find expected node content: what begins with [ or {, here or above, ends with ] or }",
		"name: x\n}\n":                              "2: is not YAML: did not find expected key: the line begins in a column",
		"---\nname: x\n...\nname: y\n":              "4: is not YAML: did not find expected <document start>: it is no part of what stands above",
		strings.Repeat("[", 20000):                  "1: is not YAML: exceeded max depth of 10000: no setting lies that deep",
	} {
		if got := told(t, doc); !strings.HasPrefix(got, want) {
			t.Errorf("%.40q:\n%s\nwant\n%s", doc, got, want)
		}
	}
}

// A value that no type takes does not hide what stands behind it.
func TestDecodesBehindAFault(t *testing.T) {
	for _, broken := range []string{"wait: soon", "until: soon", "claims: [{value: .inf}]", "key: x", "count: x"} {
		var got sheet
		_, faults, err := Decode([]byte(broken+"\nname: behind\n"), &got, nil)
		if err != nil || len(faults) != 1 || got.Name != "behind" {
			t.Errorf("%s: name %q, %v, %v", broken, got.Name, faults, err)
		}
	}
}

// picky is a type that the walker takes for text.
type picky string

func (p *picky) UnmarshalYAML(*yaml.Node) error { return errors.New("not today") }

// What the walker lets through and yaml does not is refused in yaml's words.
func TestYAMLHasTheLastWord(t *testing.T) {
	var got struct {
		Name picky `yaml:"name"`
	}
	_, faults, err := Decode([]byte("\nname: x"), &got, nil)
	if diff := cmp.Diff([]Fault{{Line: 2, Message: "not today"}}, faults); diff != "" || err != nil {
		t.Errorf("%v, faults (-want +got):\n%s", err, diff)
	}
}

func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		"prod": `"prod"`, `"12"`: `"12"`, "12": "12", "1.50": "1.50", "123456789012345678901234567890": "123456789012345678901234567890",
		"true": "true", "null": "null", "yes": `"yes"`, "[1, a, {b: c, a: [x]}]": `[1,"a",{"b":"c","a":["x"]}]`,
		`"<&>é\u2028😀"`: `"<&>é\u2028😀"`, "{}": "{}", "[]": "[]", `"a\tb"`: `"a\tb"`,
	} {
		var got struct {
			Value []JSON `yaml:"value,omitempty"`
		}
		if _, faults, err := Decode([]byte("value: ["+in+"]"), &got, nil); err != nil || faults != nil {
			t.Errorf("%s: %v, %v", in, faults, err)
			continue
		}
		// yaml hands no null to an unmarshaller
		if s := string(got.Value[0]); s != want && !(want == "null" && s == "") {
			t.Errorf("%s: %s, want %s", in, s, want)
		}
	}
}

func TestChanged(t *testing.T) {
	one, two := uint32(1), uint32(2)
	before := sheet{From: "a", Seen: map[string]int{"x": 1}, Name: "x", ID: &one, Key: NewSecret("one"), Texts: []string{"a"}, Claims: []claim{{"x", JSON("1")}, {"y", JSON("2")}}}
	same := before
	same.From, same.Seen, same.Key, same.ID = "b", nil, NewSecret("one"), new(uint32)
	*same.ID = 1
	after := sheet{Name: "y", ID: &two, Key: NewSecret("two"), Texts: []string{"b"}, Claims: []claim{{"x", JSON("1")}, {"y", JSON("3")}}, Box: box{Width: 1}, Wait: 1}
	longer := before
	longer.Claims = append(longer.Claims, claim{})
	for _, tc := range []struct {
		to   sheet
		want string
	}{{same, ""}, {after, "box.width claims[1].value id key name texts wait"}, {longer, "claims"}} {
		if got := strings.Join(Changed(before, tc.to), " "); got != tc.want {
			t.Errorf("changed %q, want %q", got, tc.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"name", "state_dir", "id", "leeway"}
	for in, want := range map[string]string{
		"state-dir": "state_dir", "stateDir": "state_dir", "STATE_DIR": "state_dir", "nam": "name", "nane": "name", "leeways": "leeway", "lee": "", "ix": "id", "xx": "", "": "", "\ufeffname": "name",
	} {
		if got := Nearest(in, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPattern(t *testing.T) {
	if got := Pattern("a[0].b[12].c"); got != "a[].b[].c" {
		t.Error(got)
	}
}
