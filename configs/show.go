package configs

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// YAML is the configuration as it holds, defaults filled in, secrets as
// [redacted]. But for these, Load takes it.
func (c *Config) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return b.Bytes(), nil
}
