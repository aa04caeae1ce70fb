// Package strictjson decodes JSON the way a signing service must read it.
//
// encoding/json takes {"alg":"ES256","ALG":"none"} and {"a":1,"a":2} without
// a word, and whoever checks the first value may be talking about another one
// than whoever uses the last. This package is the only user of
// go-json-experiment/json, which refuses both; it stands alone because that
// module has no tagged version yet. It imports nothing of keyturn.
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep arrays and objects may nest, the outermost counted.
// It bounds the work that a small document can cause.
const MaxDepth = 16

// MaxMembers is how many members one object may have: to find one that appears
// twice, all their names are kept.
const MaxMembers = 10_000

// errTooWide reports an object with more members than MaxMembers.
var errTooWide = fmt.Errorf("a JSON object has more than %d members", MaxMembers)

// ErrTooDeep reports a document that nests deeper than MaxDepth.
var ErrTooDeep = fmt.Errorf("JSON nests deeper than %d levels", MaxDepth)

// Unmarshal decodes one JSON value into v. Names match case-exactly; unknown
// names (RFC 8259 leaves them open, we do not), duplicate names, invalid UTF-8,
// data after the value, nesting beyond MaxDepth and objects beyond MaxMembers are
// errors. The caller bounds the size of data.
func Unmarshal(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	return plain(json.Unmarshal(data, v, json.RejectUnknownMembers(true)))
}

// UnmarshalOpen is Unmarshal for documents that others extend, such as a JOSE
// header or a key set: unknown names are allowed, everything else is as strict.
func UnmarshalOpen(data []byte, v any) error {
	if err := Check(data); err != nil {
		return err
	}
	return plain(json.Unmarshal(data, v))
}

// Check reports whether data is exactly one JSON value that Unmarshal could
// read into some Go value: unique names, valid UTF-8, no trailing data, bounded depth.
func Check(data []byte) error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data)) // of a Buffer it makes no copy
	for {
		_, err := dec.ReadToken()
		switch {
		case errors.Is(err, io.EOF) && dec.InputOffset() == 0:
			return errors.New("empty document")
		case err != nil:
			return plain(err)
		}
		switch depth := dec.StackDepth(); {
		case depth > MaxDepth:
			return ErrTooDeep
		case depth == 0:
			if rest := bytes.TrimLeft(data[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
				return errors.New("data after the JSON value")
			}
			return nil
		default:
			if kind, values := dec.StackIndex(depth); kind == jsontext.KindBeginObject && values > 2*MaxMembers {
				return errTooWide
			}
		}
	}
}

// plain takes the library's and Go's words out of an error: a caller of the
// socket does not know what a Go struct is.
func plain(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &semantic):
		at := string(semantic.JSONPointer)
		switch {
		case errors.Is(err, json.ErrUnknownName):
			return fmt.Errorf("unknown member %s", quotePointer(at))
		case semantic.JSONKind != 0 && semantic.GoType != nil:
			if at == "" {
				return fmt.Errorf("the document cannot be %s", kindName(semantic.JSONKind))
			}
			return fmt.Errorf("member %s cannot be %s", quotePointer(at), kindName(semantic.JSONKind))
		}
		return fmt.Errorf("member %s: invalid value", quotePointer(at))
	case errors.As(err, &syntactic):
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Errorf("member %s appears twice", quotePointer(string(syntactic.JSONPointer)))
		}
		return fmt.Errorf("not valid JSON at byte %d: %v", syntactic.ByteOffset, syntactic.Err)
	}
	return err
}

func quotePointer(p string) string {
	if p == "" {
		return "(the document)"
	}
	if len(p) > 80 {
		p = p[:80] + "…"
	}
	return fmt.Sprintf("%q", p)
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string like this"
	case '0':
		return "a number like this"
	case '{':
		return "an object"
	case '[':
		return "an array"
	}
	return "this"
}

// ErrTooMany reports an array with more elements than the caller takes.
var ErrTooMany = errors.New("the array has too many elements")

// Elements returns the elements of an array as parts of it, most at most:
// a document that is small can hold very many. The array is one that Unmarshal
// or Check has found sound.
func Elements(array []byte, most int) ([][]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(array))
	if dec.PeekKind() != jsontext.KindBeginArray {
		return nil, errors.New("not an array")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, plain(err)
	}
	var list [][]byte
	for dec.PeekKind() != jsontext.KindEndArray {
		value, err := dec.ReadValue()
		switch {
		case err != nil:
			return nil, plain(err)
		case len(list) == most:
			return nil, fmt.Errorf("%w: at most %d", ErrTooMany, most)
		}
		end := int(dec.InputOffset())
		list = append(list, array[end-len(value):end:end])
	}
	return list, nil
}

// Part is one thing inside of a JSON value.
type Part struct {
	Kind PartKind
	// Text is a name without its escapes, or a number as it is written.
	Text string
}

// PartKind is what a Part is.
type PartKind int

// The kinds of parts: an object begins, it ends, one of its members has this
// name, a number.
const (
	Begin PartKind = iota
	End
	Name
	Number
)

// Parts yields the objects, names and numbers in a value, at every depth and in
// the order of the text. The value is one that Unmarshal or Check has found sound.
func Parts(value []byte) iter.Seq[Part] {
	return func(yield func(Part) bool) {
		dec := jsontext.NewDecoder(bytes.NewBuffer(value))
		for {
			token, err := dec.ReadToken()
			if err != nil {
				return
			}
			var part Part
			switch token.Kind() {
			case jsontext.KindBeginObject:
				part.Kind = Begin
			case jsontext.KindEndObject:
				part.Kind = End
			case jsontext.KindNumber:
				part = Part{Number, token.String()}
			case jsontext.KindString:
				// Of an object's names and values, the odd ones are names.
				if in, read := dec.StackIndex(dec.StackDepth()); in != jsontext.KindBeginObject || read%2 == 0 {
					continue
				}
				part = Part{Name, token.String()}
			default:
				continue
			}
			if !yield(part) {
				return
			}
		}
	}
}
