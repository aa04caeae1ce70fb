package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// output is standard output, which remembers that it could not be written:
// nobody looks at each line of a table or of a help.
type output struct {
	w   io.Writer
	err error // the first one
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	o.err = err
	return n, err
}

// format is the flag -o.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "table|json|yaml" }

// Set implements pflag.Value.
func (f *format) Set(s string) error {
	switch format(s) {
	case formatTable, formatJSON, formatYAML:
		*f = format(s)
		return nil
	}
	return fmt.Errorf("use table, json or yaml")
}

// print writes v as JSON or YAML, or calls table.
func (f *format) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch *f {
	case formatJSON:
		doc, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		_, err = fmt.Fprintf(w, "%s\n", printing(string(doc)))
		return err
	case formatYAML:
		return printYAML(w, v)
	}
	return table(w)
}

// printYAML writes what JSON would say: the names and the order are those of
// the JSON. JSON is YAML, so it is parsed as that and written in block style.
func printYAML(w io.Writer, v any) error {
	doc, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	var n yaml.Node
	if err := yaml.Unmarshal(escaped(string(doc)), &n); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	blockStyle(&n)
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&n), enc.Close()); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = w.Write(escaped(out.String()))
	return err
}

// escaped is printing for YAML, whose escapes are others (YAML 1.2 §5.7). In
// what does not print JSON and block style have line breaks alone, but for
// strings in double quotes.
func escaped(doc string) []byte {
	var out []byte
	for _, r := range doc {
		if r == '\n' || unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
		} else {
			out = fmt.Appendf(out, `\U%08x`, r)
		}
	}
	return out
}

func blockStyle(n *yaml.Node) {
	n.Style = 0
	if strings.ContainsFunc(n.Value, func(r rune) bool { return !unicode.IsPrint(r) }) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}

// table aligns rows under a header; an empty cell is shown as –.
func table(w io.Writer, header []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		for i, cell := range row {
			if cell == "" {
				cell = "–"
			}
			end := "\t"
			if i == len(row)-1 {
				end = "\n"
			}
			fmt.Fprint(tw, plainText(cell), end)
		}
	}
	return tw.Flush()
}

// plainText keeps what came from elsewhere from moving the cursor (C0, C1, DEL)
// and from turning the text around it (U+202E and its kin).
func plainText(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// oneWord quotes what is not a plain word, so that nobody takes a part of it
// for ours.
func oneWord(s string) string {
	if quoted := strconv.Quote(s); strings.Contains(s, " ") || quoted != `"`+s+`"` {
		return quoted
	}
	return s
}

// printing is plainText for JSON that has to stay the same: what does not print
// stands in its strings only, but for line breaks, and becomes an escape there.
func printing(doc string) string {
	var out strings.Builder
	for _, r := range doc {
		if r == '\n' || unicode.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	return out.String()
}

// stamp writes a time as people and programs read it, in UTC.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// rough is a span of time to the second, short: 3h2m, 45s.
func rough(d time.Duration) string {
	d = d.Round(time.Second)
	if d >= 48*time.Hour {
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// due writes a time with how far it is away.
func due(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case t.Before(now):
		return fmt.Sprintf("%s (%s ago)", stamp(t), rough(now.Sub(t)))
	}
	return fmt.Sprintf("%s (in %s)", stamp(t), rough(t.Sub(now)))
}
