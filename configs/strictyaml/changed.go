package strictyaml

import (
	"fmt"
	"reflect"
	"slices"
)

// Changed lists the fields, by path and sorted, in which two values of one struct
// type differ. A list whose length differs is named as a whole.
func Changed[T any](before, after T) []string {
	var out []string
	differ("", reflect.ValueOf(before), reflect.ValueOf(after), &out)
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
			if name := nameOf(t.Field(i)); name != "" {
				differ(join(path, name), a.Field(i), b.Field(i), out)
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
