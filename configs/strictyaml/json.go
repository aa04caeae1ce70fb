package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// JSON is a JSON value that a file writes as YAML. Numbers are kept as they
// are written, members in their order.
type JSON json.RawMessage

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *JSON) UnmarshalYAML(n *yaml.Node) error { return goOn(r.fromNode(n)) }

func (r *JSON) fromNode(n *yaml.Node) error {
	var b bytes.Buffer
	if err := writeJSON(&b, n); err != nil {
		return err
	}
	*r = b.Bytes()
	return nil
}

// MarshalYAML implements yaml.Marshaler. JSON as this package writes it is YAML.
func (r JSON) MarshalYAML() (any, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(r, &n); err != nil {
		return nil, fmt.Errorf("JSON value as YAML: %w", err)
	}
	if len(n.Content) != 1 {
		return nil, errors.New("an empty JSON value")
	}
	return n.Content[0], nil
}

// MarshalJSON implements json.Marshaler.
func (r JSON) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }

func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.ScalarNode:
		return writeScalar(b, n)
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeJSON(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := writeString(b, n.Content[i].Value); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := writeJSON(b, n.Content[i+1]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
		return nil
	}
	return errors.New("write the value out: aliases are not read")
}

func writeScalar(b *bytes.Buffer, n *yaml.Node) error {
	switch n.ShortTag() {
	case "!!null":
		b.WriteString("null")
		return nil
	case "!!str":
		return writeString(b, n.Value)
	case "!!bool", "!!int", "!!float":
		// what is JSON as it stands: true, 12, 1.5e3; not yes, 010 or .inf
		if json.Valid([]byte(n.Value)) {
			b.WriteString(n.Value)
			return nil
		}
	}
	return fmt.Errorf("%q is no JSON value as it stands: write it in quotes if it is text", n.Value)
}

// writeString writes a JSON string that is YAML as well: raw UTF-8, since YAML
// has no surrogate pairs.
func writeString(b *bytes.Buffer, s string) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the encoder's newline
	return nil
}
