package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// lineOf is the first line of a log with one record.
func lineOf(t testing.TB, r Record) []byte {
	t.Helper()
	doc, err := r.appendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	l := newChain()
	return l.seal(doc, 0)
}

// reference writes a record by reflection, and then escapes what does not print.
func reference(t testing.TB, r Record) string {
	t.Helper()
	r.Time = r.Time.UTC()
	if !r.ExpiresAt.IsZero() {
		r.ExpiresAt = r.ExpiresAt.UTC()
	}
	if !r.First.IsZero() {
		r.First = r.First.UTC()
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, r := range strings.TrimSuffix(buf.String(), "\n") {
		if unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			out = fmt.Appendf(out, `\u%04x`, unit)
		}
	}
	return string(out)
}

func sameAsReference(t testing.TB, r Record) {
	t.Helper()
	got, err := r.appendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(t, r), string(got)+"}"); diff != "" {
		t.Errorf("%+v (-reference +ours):\n%s", r, diff)
	}
}

// TestEncodeEveryField fills each field alone: none may be forgotten.
func TestEncodeEveryField(t *testing.T) {
	typ := reflect.TypeFor[Record]()
	for i := range typ.NumField() {
		var r Record
		switch f := reflect.ValueOf(&r).Elem().Field(i).Addr().Interface().(type) {
		case *string:
			*f = "ä\"\x00"
		case *Event:
			*f = EventSign
		case *Decision:
			*f = Deny
		case *[]string:
			*f = []string{"a", "", "b\n"}
		case *bool:
			*f = true
		case *int:
			*f = 7
		case *uint32:
			*f = 1<<32 - 1
		case *int32:
			*f = -1 << 31
		case *time.Time:
			*f = time.Date(2026, 3, 1, 12, 0, 0, 120, time.FixedZone("", -3600))
		default:
			t.Fatalf("field %s has a type that this test does not know", typ.Field(i).Name)
		}
		sameAsReference(t, r)
	}
}

func TestEncodeYears(t *testing.T) {
	for _, year := range []int{-1, 10000} {
		at := time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)
		for _, r := range []Record{{Time: at}, {ExpiresAt: at}, {First: at}} {
			if doc, err := r.appendTo(nil); err == nil {
				t.Errorf("year %d: %s", year, doc)
			}
		}
	}
}

func TestEncodeRandom(t *testing.T) {
	text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]*`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"\u2028", "\ufffd", "\xff", "\u202e<&>", "\U000e0041", "\t\b\f\r\n\x1f\x7f\u0080"}))
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(-1<<33, 1<<37).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
	})
	rapid.Check(t, func(rt *rapid.T) {
		sameAsReference(t, Record{
			Time: moment.Draw(rt, "time"), Event: Event(text.Draw(rt, "event")), Decision: Decision(text.Draw(rt, "decision")),
			Code: text.Draw(rt, "code"), Socket: text.Draw(rt, "socket"), UID: rapid.Uint32().Draw(rt, "uid"), PID: rapid.Int32().Draw(rt, "pid"),
			Profile: text.Draw(rt, "profile"), Kids: rapid.SliceOf(text).Draw(rt, "kids"), Force: rapid.Bool().Draw(rt, "force"),
			JTI: text.Draw(rt, "jti"), Subject: text.Draw(rt, "subject"), Audiences: rapid.SliceOf(text).Draw(rt, "aud"),
			ExpiresAt: moment.Draw(rt, "exp"), Reason: text.Draw(rt, "reason"), Count: rapid.IntRange(0, 1<<40).Draw(rt, "count"), First: moment.Draw(rt, "first"),
		})
	})
}

func FuzzLine(f *testing.F) {
	f.Add("user\n{}", "aud\"", "reason\r\u2028\x00")
	f.Add(`","chain":"x","seq":1,"prev":"`, strings.Repeat("0", 64), `","hash":"`)
	f.Fuzz(func(t *testing.T, subject, audience, reason string) {
		r := Record{Subject: subject, Audiences: []string{audience}, Reason: reason}
		sameAsReference(t, r)
		line := lineOf(t, r)
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Fatalf("not one line: %q", line)
		}
		var back struct {
			Record
			Chain, Prev, Hash string
			Seq               uint64
		}
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		l, sound := ParseLink(line[:len(line)-1])
		if !sound || l.Chain != back.Chain || l.Seq != back.Seq || string(l.Hash[:]) != back.Hash || string(l.Prev[:]) != back.Prev {
			t.Errorf("ParseLink = %+v, %v of %s", l, sound, line)
		}
		if want := strings.ToValidUTF8(subject, "\ufffd"); len(back.Subject) < len(want) {
			t.Errorf("subject %q became %q", subject, back.Subject)
		}
	})
}
