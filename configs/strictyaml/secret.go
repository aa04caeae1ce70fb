package strictyaml

import (
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
func (s *Secret) UnmarshalYAML(n *yaml.Node) error { return goOn(s.fromNode(n)) }

func (s *Secret) fromNode(*yaml.Node) error { return errors.New("a secret never stands in the file") }
