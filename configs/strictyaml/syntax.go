package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"
)

type remedy struct{ said, do string }

// remedies says what leads most often to what yaml says. The last one fits all.
var remedies = []remedy{
	{"found a tab character", "indent with spaces; YAML takes no tabs there"},
	{"cannot start any token", "indent with spaces, not with tabs; and write a value in quotes if it begins with @, % or `"},
	{"mapping values are not allowed", "is the line indented deeper than those beside it, is there a colon, here or above, without the space behind it, or does a text with a colon lack its quotes?"},
	{"expected '-' indicator", "the line begins in a column that nothing above it began in: fields of one item stand in one column, items of a list behind their -"},
	{"did not find expected key", "the line begins in a column that nothing above it began in, or holds more than field: value"},
	{"could not find expected ':'", "write a colon and a plain space behind the name of the field"},
	{"expected ',' or ']'", "a list that begins with [, here or above, has commas between its items and ends with ]"},
	{"expected ',' or '}'", "a mapping that begins with {, here or above, has commas between its fields and ends with }"},
	{"expected node content", "what begins with [ or {, here or above, ends with ] or }, and has commas between its parts"},
	{"unexpected document indicator", "a quote above the --- is not closed"},
	{"escape character", `in "…" a \ begins an escape: write the text in '…', or \\ for each \`},
	{"hexdecimal number", `in "…" a \ begins an escape: write the text in '…', or \\ for each \`},
	{"comment or line break", "text begins on the line below | or >"},
	{"tag", "write text that begins with ! in quotes"},
	{"unexpected end of stream", "a quote is opened here and not closed"},
	{"expected alphabetic or numeric", "write a value in quotes if it begins with * or &"},
	{"unknown anchor", "aliases are not read: write the value out, in quotes if it begins with *"},
	{"block sequence entries are not allowed", "a list begins on a line of its own, each item with a - and a space"},
	{"<document start>", "it is no part of what stands above: does it lack its name, or does a line with ... end the document there?"},
	{"control characters", "it holds a byte that no text has: was it cut off, or saved by something else than an editor?"},
	{"UTF-8", "save the file as UTF-8"},
	{"incompatible YAML document", "take the line with %YAML out"},
	{"max depth", "no setting lies that deep"},
	{"", "write text in quotes if it begins with a sign that YAML knows"},
}

// itsLine is the line that yaml names, where it does.
var itsLine = regexp.MustCompile(`^line [0-9]+: `)

// syntaxError says where and why a document is no YAML, and what to do about it.
func syntaxError(doc []byte, err error) *SyntaxError {
	said, line := itsLine.ReplaceAllString(inYAMLsWords(err), ""), noticed(doc, err)
	// Where no field stands above it, a name without its colon is taken for text,
	// and what is noticed is the next field.
	if strings.HasPrefix(said, "mapping values") || strings.Contains(said, "document start") {
		if above := textAbove(doc, line); above > 0 {
			said, line = "could not find expected ':'", above
		}
	}
	i := slices.IndexFunc(remedies, func(r remedy) bool { return strings.Contains(said, r.said) })
	return &SyntaxError{line, "is not YAML: " + said + ": " + remedies[i].do}
}

// noticed is the first line that, with all before it, makes yaml say what it says
// of the whole. yaml itself names the line in which the block around it began, the
// one before that, or none.
func noticed(doc []byte, told error) int {
	ends := lineEnds(doc)
	return 1 + sort.Search(len(ends)-1, func(i int) bool {
		err := complaint(doc[:ends[i]])
		return err != nil && err.Error() == told.Error()
	})
}

// complaint is what yaml says of a document, and of what stands behind it; nil for
// nothing.
func complaint(doc []byte) error {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	for range 2 {
		if err := dec.Decode(new(yaml.Node)); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// field matches a line with a field, an item of a list, or the end of something.
var field = regexp.MustCompile(`:(\s|$)|^[-\]}.]`)

// textAbove is the nearest line above that says something, if that is not a field;
// 0 if it is.
func textAbove(doc []byte, line int) int {
	ends := append([]int{0}, lineEnds(doc)...)
	for i := line - 1; i > 0; i-- {
		text := bytes.TrimSpace(doc[ends[i-1]:ends[i]])
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		if field.Match(text) {
			return 0
		}
		return i
	}
	return 0
}

// lineEnds is where the lines of a document end, the last one at its end.
func lineEnds(doc []byte) []int {
	var ends []int
	for i, b := range doc {
		if b == '\n' || b == '\r' && i+1 < len(doc) && doc[i+1] != '\n' {
			ends = append(ends, i+1)
		}
	}
	return append(ends, len(doc))
}

// mark matches the line that a document begins with.
var mark = regexp.MustCompile(`^---(\s|$)`)

// secondDocument is the line of the first --- behind the line in which the first
// document's content begins; 0 where there is none.
func secondDocument(doc []byte, after int) int {
	ends := lineEnds(doc)
	for i := after; i < len(ends); i++ {
		if mark.Match(doc[ends[i-1]:ends[i]]) {
			return i + 1
		}
	}
	return 0
}
