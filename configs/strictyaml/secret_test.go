package strictyaml

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// A secret shows itself to nobody, whatever is done with it and with what holds it.
func TestSecretShowsNothing(t *testing.T) {
	const canary = "canary"
	s := NewSecret(canary)
	if s.Reveal() != canary || s.IsZero() || !s.Equal(NewSecret(canary)) || s.Equal(NewSecret("")) || !NewSecret("").IsZero() || NewSecret("").Reveal() != "" {
		t.Fatal("it is not what was put in")
	}
	var out bytes.Buffer
	// fmt calls no method of an unexported field.
	for _, v := range []any{s, &s, sheet{Key: s}, &sheet{Key: s}, []Secret{s}, struct{ hidden Secret }{s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%c"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		doc, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(doc)
		if doc, err = yaml.Marshal(v); err != nil {
			t.Fatal(err)
		}
		out.Write(doc)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("value", "value", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("value", "value", v)
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary)} {
		if strings.Contains(strings.ToLower(out.String()), form) {
			t.Errorf("it is shown as %s:\n%s", form, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing is redacted: the test shows nothing")
	}
}
