package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Changed lists the settings, by path, in which another configuration differs.
// A list whose length differs is named as a whole.
func (c *Config) Changed(next *Config) []string {
	var out []string
	differ("", reflect.ValueOf(*c), reflect.ValueOf(*next), &out)
	slices.Sort(out)
	return out
}

func differ(path string, a, b reflect.Value, out *[]string) {
	if reflect.DeepEqual(a.Interface(), b.Interface()) {
		return
	}
	t := a.Type()
	switch {
	case t.Kind() == reflect.Struct && len(fieldsOf(t)) > 0:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			if name != "-" && name != "" {
				differ(strings.TrimPrefix(path+"."+name, "."), a.Field(i), b.Field(i), out)
			}
		}
	case t.Kind() == reflect.Slice && a.Len() == b.Len() && t.Elem().Kind() == reflect.Struct:
		for i := range a.Len() {
			differ(fmt.Sprintf("%s[%d]", path, i), a.Index(i), b.Index(i), out)
		}
	default:
		*out = append(*out, path)
	}
}
