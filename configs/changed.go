package configs

import "github.com/keyturn/keyturn/configs/strictyaml"

// Changed lists the settings, by path, in which another configuration differs.
// A list whose length differs is named as a whole.
func (c *Config) Changed(next *Config) []string { return strictyaml.Changed(*c, *next) }
