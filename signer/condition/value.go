package condition

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	"strconv"
	"strings"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// exact is from where on a double does not tell whole numbers apart.
const exact = 1 << 53

// maxDigits is the longest number with a point or an exponent.
const maxDigits = 400

// reader counts what it reads, so that no request makes a condition dear.
type reader struct{ values int }

func readClaims(claims iter.Seq2[string, []byte]) (map[string]any, error) {
	out := map[string]any{}
	if claims == nil {
		return out, nil
	}
	var r reader
	for name, raw := range claims {
		v, err := r.read(raw)
		if err != nil {
			return nil, fmt.Errorf("claim %q: %w", clipName(name), err)
		}
		out[name] = v
	}
	return out, nil
}

func clipName(name string) string {
	const most = 64
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "…"
	}
	return name
}

// read makes a CEL value of JSON. Most claims are plain text, which needs no decoder.
func (r *reader) read(raw []byte) (ref.Val, error) {
	if n := len(raw); n >= 2 && raw[0] == '"' && raw[n-1] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		if err := r.count(n - 2); err != nil {
			return nil, err
		}
		return types.String(raw[1 : n-1]), nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, errors.New("it is no JSON")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) { // else it was judged by a part of what is signed
		return nil, errors.New("it is more than one JSON value")
	}
	return r.convert(v)
}

func (r *reader) count(text int) error {
	r.values++
	switch {
	case r.values > maxItems:
		return fmt.Errorf("the claims hold more than %d values, and a condition looks at no more", maxItems)
	case text > maxString:
		return fmt.Errorf("a text in it has %d bytes, and a condition looks at %d at most", text, maxString)
	}
	return nil
}

func (r *reader) convert(v any) (ref.Val, error) {
	text, _ := v.(string)
	if err := r.count(len(text)); err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case nil:
		return types.NullValue, nil
	case bool:
		return types.Bool(v), nil
	case string:
		return types.String(v), nil
	case json.Number:
		return number(string(v))
	case []any:
		list := make([]ref.Val, len(v))
		for i, item := range v {
			var err error
			if list[i], err = r.convert(item); err != nil {
				return nil, err
			}
		}
		return types.NewRefValList(types.DefaultTypeAdapter, list), nil
	case map[string]any:
		object := make(map[string]any, len(v))
		for name, item := range v {
			if err := r.count(len(name)); err != nil {
				return nil, err
			}
			var err error
			if object[name], err = r.convert(item); err != nil {
				return nil, err
			}
		}
		return types.NewStringInterfaceMap(types.DefaultTypeAdapter, object), nil
	}
	return nil, fmt.Errorf("a %T is no JSON value", v)
}

var errNumber = errors.New("it holds a number that cannot be told apart from its neighbours (beyond 64 bits, or a fraction beyond 2^53)")

// number is an int where the value is a whole number, however it is written,
// and a double where it has a fraction.
func number(text string) (ref.Val, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return types.Int(i), nil
	}
	if !strings.ContainsAny(text, ".eE") {
		return nil, errNumber // digits, and more than fit
	}
	// The exponent first: big.Rat would write 1e999999999 out.
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) > math.MaxInt64 {
		return nil, errNumber
	}
	switch {
	case f == 0 && zero(text):
		return types.Int(0), nil // of any exponent
	case f == 0, len(text) > maxDigits: // so small that only zero is near; so long that it is no number to compare
		return nil, errNumber
	}
	rational, ok := new(big.Rat).SetString(text)
	switch {
	case !ok:
		return nil, errNumber
	case rational.IsInt() && rational.Num().IsInt64():
		return types.Int(rational.Num().Int64()), nil
	case rational.IsInt(), math.Abs(f) >= exact, f == math.Trunc(f):
		return nil, errNumber
	}
	return types.Double(f), nil
}

// zero reports whether a number's digits are all zeros.
func zero(text string) bool {
	digits, _, _ := strings.Cut(strings.ToLower(text), "e")
	return strings.Trim(digits, "-0.") == ""
}
