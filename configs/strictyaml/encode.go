package strictyaml

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// Encode writes a struct as Decode reads it, secrets as [redacted]: these Decode
// refuses, as it does texts and mappings that are empty and not left out (omitempty).
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
