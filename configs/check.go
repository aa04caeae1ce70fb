package configs

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checker walks the nodes of a file beside the types that they are decoded
// into. It notes the line of every field, and refuses what yaml would bend
// until it fits.
type checker struct {
	src    *source
	faults Faults
}

var (
	durationType = reflect.TypeFor[Duration]()
	rawJSONType  = reflect.TypeFor[RawJSON]()
	dateType     = reflect.TypeFor[Date]()
	integer      = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)
	index        = regexp.MustCompile(`\[[0-9]+\]`)
)

func (c *checker) fault(n *yaml.Node, path, format string, args ...any) {
	f := Fault{Where: fmt.Sprintf("%s:%d", c.src.file, n.Line), Path: path, Message: fmt.Sprintf(format, args...), line: n.Line}
	c.faults = append(c.faults, f)
}

// plain refuses what YAML has beyond scalars, lists and mappings. It reports
// whether the node can be looked into.
func (c *checker) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		c.fault(n, path, "*%s is an alias: write the value out, so that a reader sees what holds here", n.Value)
	case n.Anchor != "":
		c.fault(n, path, "&%s is an anchor: take it out, aliases are not read", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		c.fault(n, path, "%s is a tag: take it out, types follow from the field", n.Tag)
	default:
		return true
	}
	return false
}

func (c *checker) node(n *yaml.Node, t reflect.Type, path string) {
	if path != "" && c.src.lines[path] == 0 {
		c.src.lines[path] = n.Line
	}
	if !c.plain(n, path) {
		return
	}
	if t == rawJSONType {
		c.json(n, path)
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		c.fault(n, path, "is empty: give it a value, or take it out for the default")
		return
	}
	switch {
	case t.Kind() == reflect.Pointer:
		c.node(n, t.Elem(), path)
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[Secret]() && t != dateType:
		if c.kind(n, yaml.MappingNode, path) {
			c.mapping(n, t, path)
		}
	case t.Kind() == reflect.Slice:
		if c.kind(n, yaml.SequenceNode, path) {
			for i, item := range n.Content {
				c.node(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
			}
		}
	default:
		if c.kind(n, yaml.ScalarNode, path) {
			c.scalar(n, t, path)
		}
	}
}

func (c *checker) kind(n *yaml.Node, want yaml.Kind, path string) bool {
	if n.Kind == want {
		return true
	}
	names := map[yaml.Kind]string{
		yaml.ScalarNode: "a single value", yaml.SequenceNode: "a list ([…], or lines that begin with -)", yaml.MappingNode: "a mapping (field: value)",
	}
	c.fault(n, path, "is %s, must be %s", names[n.Kind], names[want])
	return false
}

// mapping checks the fields of a struct; names are case-exact and unique.
func (c *checker) mapping(n *yaml.Node, t reflect.Type, path string) {
	fields := fieldsOf(t)
	c.keys(n, path, func(key, value *yaml.Node, at string) {
		pattern := index.ReplaceAllString(at, "[]")
		switch field, known := fields[key.Value]; {
		case refused[pattern] != "":
			c.fault(key, at, "%s", refused[pattern])
		case notBuilt[pattern] != "":
			c.fault(key, at, "not built yet: %s; take it out", notBuilt[pattern])
		case !known:
			c.fault(key, at, "unknown field%s", hint(key.Value, fields, path))
		default:
			c.src.lines[at] = key.Line
			c.node(value, field, at)
		}
	})
}

// keys calls f for each pair whose key is a plain and unique name.
func (c *checker) keys(n *yaml.Node, path string, f func(key, value *yaml.Node, at string)) {
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !c.plain(key, path) {
			continue
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			c.fault(key, path, "the name of a field must be text; %q is not (a merge with << is not read)", key.Value)
			continue
		}
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		if line := first[key.Value]; line > 0 {
			c.fault(key, at, "appears twice, first in line %d: keep one", line)
			continue
		}
		first[key.Value] = key.Line
		f(key, value, at)
	}
}

func (c *checker) scalar(n *yaml.Node, t reflect.Type, path string) {
	tag := n.ShortTag()
	switch {
	case t == durationType:
		if tag == "!!int" || tag == "!!float" {
			c.fault(n, path, "%s has no unit: write %ss, or another of ms, s, m, h, d, w", n.Value, n.Value)
		} else if _, err := ParseDuration(n.Value); err != nil {
			c.fault(n, path, "%v", err)
		}
	case t == dateType:
		if _, err := ParseDate(n.Value); err != nil {
			c.fault(n, path, "%v", err)
		}
	case t.Kind() == reflect.String:
		if tag != "!!str" {
			c.fault(n, path, "%s would be read as %s, and this is text: write it in quotes, %q", n.Value, kindName(tag), n.Value)
		} else if n.Value == "" {
			c.fault(n, path, "is empty: give it a value, or take it out for the default")
		}
	case t.Kind() == reflect.Bool:
		if n.Value != "true" && n.Value != "false" || tag != "!!bool" {
			c.fault(n, path, "is %q: write true or false", n.Value)
		}
	default:
		c.integer(n, t, path)
	}
}

func (c *checker) integer(n *yaml.Node, t reflect.Type, path string) {
	if n.ShortTag() != "!!int" || !integer.MatchString(n.Value) {
		c.fault(n, path, "%q is not a whole number: write it in decimal, without quotes, leading zeros or a fraction", n.Value)
		return
	}
	var err error
	if t.Kind() == reflect.Uint32 {
		_, err = strconv.ParseUint(n.Value, 10, 32)
	} else {
		_, err = strconv.ParseInt(n.Value, 10, t.Bits())
	}
	if err != nil && t.Kind() == reflect.Uint32 {
		c.fault(n, path, "%s is out of range: ids go from 0 to 4294967295", n.Value)
	} else if err != nil {
		c.fault(n, path, "%s is out of range", n.Value)
	}
}

// json checks a value of any shape, which is kept as JSON.
func (c *checker) json(n *yaml.Node, path string) {
	if !c.plain(n, path) {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		c.keys(n, path, func(_, value *yaml.Node, at string) { c.json(value, at) })
	case yaml.SequenceNode:
		for i, item := range n.Content {
			c.json(item, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		if err := new(RawJSON).UnmarshalYAML(n); err != nil {
			c.fault(n, path, "%v", err)
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
