package strictyaml

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// walker walks the nodes of a document beside the types that they are decoded
// into. It notes the line of every field, and refuses what yaml would bend until
// it fits.
type walker struct {
	root    reflect.Type // where the homes of unknown fields are looked for
	refused map[string]string
	lines   map[string]int
	faults  []Fault
}

// scalar is a type for what YAML lacks, written as a single value.
type scalar interface{ fromNode(*yaml.Node) error }

var (
	jsonType   = reflect.TypeFor[JSON]()
	scalarType = reflect.TypeFor[scalar]()
	integer    = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)
)

func (w *walker) fault(n *yaml.Node, path, format string, args ...any) {
	w.faults = append(w.faults, Fault{Line: n.Line, Path: path, Message: fmt.Sprintf(format, args...)})
}

// plain refuses what YAML has beyond scalars, lists and mappings. It reports
// whether the node can be looked into.
func (w *walker) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		w.fault(n, path, "*%s is an alias: write the value out, so that a reader sees what holds here", n.Value)
	case n.Anchor != "":
		w.fault(n, path, "&%s is an anchor: take it out, aliases are not read", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		w.fault(n, path, "%s is a tag: take it out, types follow from the field; write text that begins with ! in quotes", shown(n.Tag))
	default:
		return true
	}
	return false
}

func (w *walker) node(n *yaml.Node, t reflect.Type, path string) {
	if path != "" && w.lines[path] == 0 {
		w.lines[path] = n.Line
	}
	if !w.plain(n, path) {
		return
	}
	if t == jsonType {
		w.json(n, path)
		return
	}
	if isNull(n) {
		w.fault(n, path, "is empty: give it a value, or take it out for the default")
		return
	}
	switch {
	case t.Kind() == reflect.Pointer:
		w.node(n, t.Elem(), path)
	case t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(scalarType):
		if w.kind(n, yaml.MappingNode, path) {
			w.mapping(n, t, path)
		}
	case t.Kind() == reflect.Slice:
		if w.kind(n, yaml.SequenceNode, path) {
			for i, item := range n.Content {
				w.node(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	default:
		if w.kind(n, yaml.ScalarNode, path) {
			w.scalar(n, t, path)
		}
	}
}

var kinds = map[yaml.Kind]string{
	yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list ([…], or lines that begin with -)", yaml.MappingNode: "a mapping (field: value)",
}

func (w *walker) kind(n *yaml.Node, want yaml.Kind, path string) bool {
	if n.Kind == want {
		return true
	}
	w.fault(n, path, "is %s, must be %s", kinds[n.Kind], kinds[want])
	return false
}

// mapping checks the fields of a struct; names are case-exact and unique.
func (w *walker) mapping(n *yaml.Node, t reflect.Type, path string) {
	fields := fieldsOf(t)
	w.keys(n, path, func(key, value *yaml.Node, at string) {
		switch field, known := fields[key.Value]; {
		case w.refused[Pattern(at)] != "":
			w.fault(key, at, "%s", w.refused[Pattern(at)])
		case !known:
			w.fault(key, at, "unknown field%s", w.hint(key.Value, fields, path))
		default:
			w.lines[at] = key.Line
			w.node(value, field, at)
		}
	})
}

// keys calls f for each pair whose key is a plain and unique name.
func (w *walker) keys(n *yaml.Node, path string, f func(key, value *yaml.Node, at string)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !w.plain(key, path) || !w.named(key, path) {
			continue
		}
		at := join(path, shown(key.Value))
		if line := first[key.Value]; line > 0 {
			w.fault(key, at, "appears twice, first in line %d: keep one", line)
			continue
		}
		first[key.Value] = key.Line
		f(key, value, at)
	}
}

// named refuses a key that is no text.
func (w *walker) named(key *yaml.Node, path string) bool {
	switch {
	case key.Kind != yaml.ScalarNode:
		w.fault(key, path, "the name of a field must be text, and this is %s", kinds[key.Kind])
	case key.ShortTag() == "!!merge":
		w.fault(key, path, "a merge with << is not read: write the fields out, so that a reader sees what holds here")
	case key.ShortTag() != "!!str":
		w.fault(key, path, "the name of a field must be text; %q is not: write it in quotes if it is meant", key.Value)
	default:
		return true
	}
	return false
}

// shown is a name as a message can show it: escaped where a terminal would act on
// it, or a reader not see it.
func shown(name string) string {
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func (w *walker) scalar(n *yaml.Node, t reflect.Type, path string) {
	if s, ok := reflect.New(t).Interface().(scalar); ok {
		if err := s.fromNode(n); err != nil {
			w.fault(n, path, "%v", err)
		}
		return
	}
	switch tag := n.ShortTag(); t.Kind() {
	case reflect.String:
		if tag != "!!str" {
			w.fault(n, path, "%s would be read as %s, and this is text: write it in quotes, %q", n.Value, kindName(tag), n.Value)
		} else if n.Value == "" {
			w.fault(n, path, "is empty: give it a value, or take it out for the default")
		}
	case reflect.Bool:
		if n.Value != "true" && n.Value != "false" || tag != "!!bool" {
			w.fault(n, path, "is %q: write true or false", n.Value)
		}
	default:
		w.integer(n, t, path)
	}
}

func (w *walker) integer(n *yaml.Node, t reflect.Type, path string) {
	// beyond 64 bits it is a !!float
	if n.ShortTag() == "!!str" || !integer.MatchString(n.Value) {
		w.fault(n, path, "%q is not a whole number: write it in decimal, without quotes, leading zeros or a fraction", n.Value)
		return
	}
	bits := t.Bits()
	switch t.Kind() {
	case reflect.Uint32:
		if _, err := strconv.ParseUint(n.Value, 10, bits); err != nil {
			w.fault(n, path, "%s is out of range: ids go from 0 to 4294967295", n.Value)
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint64:
		if _, err := strconv.ParseUint(n.Value, 10, bits); err != nil {
			w.fault(n, path, "%s is out of range: it goes from 0 to %d", n.Value, uint64(1)<<bits-1)
		}
	default:
		if _, err := strconv.ParseInt(n.Value, 10, bits); err != nil {
			w.fault(n, path, "%s is out of range: it goes to %d", n.Value, int64(1)<<(bits-1)-1)
		}
	}
}

// json checks a value of any shape, which is kept as JSON.
func (w *walker) json(n *yaml.Node, path string) {
	if !w.plain(n, path) {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		w.keys(n, path, func(_, value *yaml.Node, at string) { w.json(value, at) })
	case yaml.SequenceNode:
		for i, item := range n.Content {
			w.json(item, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		if err := new(JSON).fromNode(n); err != nil {
			w.fault(n, path, "%v", err)
		}
	}
}

func kindName(tag string) string {
	switch tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return tag
}
