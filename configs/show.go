package configs

import (
	"fmt"

	"github.com/keyturn/keyturn/configs/strictyaml"
)

// YAML is the configuration as it holds, defaults filled in, secrets as
// [redacted]. But for these, Load takes it.
func (c *Config) YAML() ([]byte, error) {
	doc, err := strictyaml.Encode(c)
	if err != nil {
		return nil, fmt.Errorf("encode configuration: %w", err)
	}
	return doc, nil
}
