package strictyaml

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
)

var index = regexp.MustCompile(`\[[0-9]+\]`)

// Pattern is a path with [] for every index: issuers[].url.
func Pattern(path string) string { return index.ReplaceAllString(path, "[]") }

// nameOf is the name of a field in YAML; "" where it has none.
func nameOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return strings.TrimSuffix(name, "-")
}

// fieldsOf lists the YAML fields of a struct type.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name := nameOf(t.Field(i)); name != "" {
			fields[name] = t.Field(i).Type
		}
	}
	return fields
}

// Settings lists the paths of a struct type's fields that have none of their own;
// what stands within lists is left out.
func Settings[T any]() []string { return settingsOf(reflect.TypeFor[T](), "") }

func settingsOf(t reflect.Type, path string) (out []string) {
	if t.Kind() != reflect.Struct || len(fieldsOf(t)) == 0 {
		return []string{path}
	}
	for i := range t.NumField() {
		if name := nameOf(t.Field(i)); name != "" {
			out = append(out, settingsOf(t.Field(i).Type, join(path, name))...)
		}
	}
	return out
}

// hint says what an unknown field may have been meant to be: another spelling,
// or a field that belongs elsewhere.
func (w *walker) hint(name string, fields map[string]reflect.Type, path string) string {
	var names []string
	for known := range fields {
		names = append(names, known)
	}
	slices.Sort(names)
	if near := Nearest(name, names); near != "" {
		return ": is it " + near + "?"
	}
	if homes := homesOf(name, w.root, ""); len(homes) > 0 {
		return ": it belongs " + strings.Join(homes, " or ")
	}
	if path == "" {
		return ": the fields here are " + strings.Join(names, ", ")
	}
	return ": the fields of " + path + " are " + strings.Join(names, ", ")
}

// homesOf lists the places that have a field of that name.
func homesOf(name string, t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer:
		return homesOf(name, t.Elem(), path)
	case reflect.Slice:
		return homesOf(name, t.Elem(), path+"[]")
	case reflect.Struct:
	default:
		return nil
	}
	var homes []string
	for i := range t.NumField() {
		known := nameOf(t.Field(i))
		switch {
		case known == "":
			continue
		case known == name && path == "":
			homes = append(homes, "at the top of the file")
		case known == name:
			homes = append(homes, "under "+path)
		}
		homes = append(homes, homesOf(name, t.Field(i).Type, join(path, known))...)
	}
	return homes
}

// join is the path of a field below another.
func join(path, name string) string { return strings.TrimPrefix(path+"."+name, ".") }

// Nearest is the candidate, in lower case, within two edits of a name or of its
// lower case; "" where none is that close.
func Nearest(name string, candidates []string) string {
	best, least := "", 3
	for _, c := range candidates {
		if d := edits([]rune(strings.ToLower(name)), []rune(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// edits is the Levenshtein distance, given up at three for names of very
// different length.
func edits(a, b []rune) int {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
