package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"go.yaml.in/yaml/v3"
)

const redacted = "[redacted]"

// Secret is a value that shows itself to nobody who prints, logs or encodes
// it. Reveal is the only way to it.
type Secret struct {
	// A pointer: of an unexported field that holds a Secret, fmt calls no
	// method, and prints an address.
	value *string
}

// NewSecret wraps a value; "" is none.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{&value}
}

// Reveal is the value.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// IsZero reports that there is none.
func (s Secret) IsZero() bool { return s.value == nil }

// Equal reports whether two are the same.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter: no verb shows the value.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON implements json.Marshaler.
func (s Secret) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// MarshalYAML implements yaml.Marshaler.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// UnmarshalYAML refuses: no secret stands in a file.
func (s *Secret) UnmarshalYAML(*yaml.Node) error {
	return goOn(errors.New("a secret never stands in the file"))
}

// RawJSON is a JSON value that a file writes as YAML. Numbers are kept as they
// are written, members in their order.
type RawJSON json.RawMessage

// UnmarshalYAML implements yaml.Unmarshaler.
func (r *RawJSON) UnmarshalYAML(n *yaml.Node) error {
	var b bytes.Buffer
	if err := writeJSON(&b, n); err != nil {
		return goOn(err)
	}
	*r = b.Bytes()
	return nil
}

// goOn makes an error of the one type that lets yaml go on, so that what is
// wrong behind it in the file is found as well.
func goOn(err error) error { return &yaml.TypeError{Errors: []string{err.Error()}} }

// MarshalYAML implements yaml.Marshaler. JSON as this package writes it is YAML.
func (r RawJSON) MarshalYAML() (any, error) {
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
func (r RawJSON) MarshalJSON() ([]byte, error) { return json.RawMessage(r).MarshalJSON() }

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
