package strictyaml

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fault is one thing that is wrong with a document, and how to mend it.
type Fault struct {
	// Line of the document, from 1.
	Line int
	// Path of the field: issuers[0].url. Empty for the whole document.
	Path    string
	Message string
}

// ErrEmpty is of a document that says nothing: no byte, comments alone, or null.
var ErrEmpty = errors.New("is empty")

// SyntaxError is of bytes that are not one document of YAML.
type SyntaxError struct {
	// Line at which that was noticed, from 1.
	Line    int
	Message string
}

func (e *SyntaxError) Error() string { return e.Message }

// Decode reads a document into the struct that a pointer points to. It gives the
// lines of the fields, from 1, by path, and the faults in the order of the
// document. With faults the struct holds what could be read all the same, so that
// a caller can look for more.
//
// Refused says of fields that the struct does not have why that is so, by path
// with [] for an index (issuers[].bucket); of others the fault guesses what was
// meant.
//
// Errors are ErrEmpty and *SyntaxError; with them there is nothing else.
func Decode(doc []byte, into any, refused map[string]string) (map[string]int, []Fault, error) {
	root, err := parse(doc)
	if err != nil {
		return nil, nil, err
	}
	w := &walker{root: reflect.TypeOf(into).Elem(), refused: refused, lines: map[string]int{}}
	w.node(root, w.root, "")

	strict := yaml.NewDecoder(bytes.NewReader(doc))
	strict.KnownFields(true)
	if err := strict.Decode(into); err != nil && len(w.faults) == 0 {
		// the walk found nothing and yaml did: tell it in yaml's words
		w.fault(root, "", "%s", inYAMLsWords(err))
	}
	return w.lines, w.faults, nil
}

// parse is the one document's node.
func parse(doc []byte) (*yaml.Node, error) {
	var first, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	switch err := dec.Decode(&first); {
	case errors.Is(err, io.EOF):
		return nil, ErrEmpty
	case err != nil:
		return nil, syntaxError(doc, err)
	}
	root := first.Content[0]
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, behind(doc, root, &second, err)
	}
	if isNull(root) {
		return nil, ErrEmpty
	}
	return root, nil
}

// behind says what stands behind the one document that was wanted.
func behind(doc []byte, root, second *yaml.Node, err error) *SyntaxError {
	line := secondDocument(doc, root.Line)
	switch {
	case line == 0 && err != nil:
		return syntaxError(doc, err)
	case line == 0: // a document may also end with ...
		line = second.Content[0].Line
	}
	return &SyntaxError{line, "has more than one YAML document: keep one, without --- between"}
}

// isNull reports a node in whose place nothing stands, or null.
func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// inYAMLsWords is what yaml said, without its name.
func inYAMLsWords(err error) string { return strings.TrimPrefix(err.Error(), "yaml: ") }

// goOn makes of an error one of the one type that lets yaml go on, so that what
// stands behind it in the document is read as well.
func goOn(err error) error {
	if err == nil {
		return nil
	}
	return &yaml.TypeError{Errors: []string{err.Error()}}
}
