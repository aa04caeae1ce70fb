package configs

import (
	"slices"
	"strings"
)

// notEchoes leaves out of what others found what may follow from a fault that
// has been told: a ring with a broken schedule makes its issuer's timing wrong.
func (v *validator) notEchoes(found []Fault, told Faults) []Fault {
	return slices.DeleteFunc(found, func(f Fault) bool {
		return slices.ContainsFunc(told, func(t Fault) bool { return v.mayFollow(f, t) })
	})
}

// mayFollow reports whether a fault may be the consequence of another one.
func (v *validator) mayFollow(f, t Fault) bool {
	item, field := split(f.Path)
	other, otherField := split(t.Path)
	kind, _, _ := strings.Cut(item, "[")
	switch {
	case item != other && kind == "profiles":
		return other == "" || !strings.HasPrefix(other, "profiles[") && (field == "" || field == "ring" || strings.HasPrefix(field, "ttl"))
	case item != other:
		// schedules stand alone; the timing of issuers comes of much
		return kind != "rings" && !strings.HasPrefix(other, "profiles[")
	case field == "" || otherField == "" || overlap(field, otherField):
		return true
	case otherField == "claims" || strings.HasPrefix(otherField, "claims."):
		return field == "when" || field == "typ"
	}
	// beside a field that has no place, one that is missing may be meant by it
	return !v.src.given(f.Path)
}

// split cuts a path behind its first index: profiles[0] and subject.pattern.
func split(path string) (item, field string) {
	if i := strings.IndexByte(path, ']'); i >= 0 {
		return path[:i+1], strings.TrimPrefix(path[i+1:], ".")
	}
	return path, ""
}

// overlap reports whether one path is the other or a part of it.
func overlap(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	rest, ok := strings.CutPrefix(b, a)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
