package configs

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong with a configuration, and how to mend it.
type Fault struct {
	// Where is file:line, or the variable or flag that the value came from.
	Where string
	// Path of the field: issuers[0].url. Empty for the whole file.
	Path    string
	Message string

	line int
	// follows: may be nothing but the consequence of another fault.
	follows bool
}

func (f Fault) String() string {
	if f.Path == "" {
		return f.Where + ": " + f.Message
	}
	return f.Where + ": " + f.Path + ": " + f.Message
}

// Faults are all that was found, in the order of the file. It is the error of
// Load for a file that can be read and not be used.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, 0, len(fs)+1)
	if len(fs) > 1 {
		lines = append(lines, fmt.Sprintf("%d faults in the configuration:", len(fs)))
	}
	for _, f := range fs {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n  ")
}

// Fault is what somebody else finds wrong with a field of the file: those who
// live by timing, schedules and rules judge them.
func (c *Config) Fault(path string, err error) Fault {
	src := &source{file: c.File, lines: c.Lines}
	return src.fault(path, "%v", err)
}

// JoinFaults puts faults in the order of the file; nil where there are none.
func JoinFaults(fs []Fault) error {
	if len(fs) == 0 {
		return nil
	}
	sorted := Faults(slices.Clone(fs))
	sortFaults(sorted)
	return sorted
}

// Warning is what does no harm and may not be what was meant.
type Warning string

// source knows where each value came from.
type source struct {
	file string
	// lines of the fields in the file, by path.
	lines map[string]int
	// overlaid names the variable or flag that set a field, by path.
	overlaid map[string]string
}

// given reports whether the file or an overlay has the field.
func (s *source) given(path string) bool { return s.lines[path] > 0 || s.overlaid[path] != "" }

// fault places a message: at the overlay, the field, or its nearest parent.
func (s *source) fault(path, format string, args ...any) Fault {
	f := Fault{Where: s.file, Path: path, Message: fmt.Sprintf(format, args...)}
	if name := s.overlaid[path]; name != "" {
		f.Where = name
		return f
	}
	for p := path; p != ""; p = parent(p) {
		if line := s.lines[p]; line > 0 {
			return s.at(line, path, f.Message)
		}
	}
	return f
}

// at places a message at a line of the file.
func (s *source) at(line int, path, message string) Fault {
	return Fault{Where: fmt.Sprintf("%s:%d", s.file, line), Path: path, Message: message, line: line}
}

// parent is the path without its last field or index.
func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

func sortFaults(fs Faults) {
	slices.SortStableFunc(fs, func(a, b Fault) int { return a.line - b.line })
}
