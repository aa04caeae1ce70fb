package cli

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/token"
	"go.yaml.in/yaml/v3"
)

// nasty moves the cursor, clears the screen and turns text around: C0, DEL,
// C1, line breaks of Unicode, bidi controls.
const nasty = "a\x1b[2J\x7f\u0085\u009b2J\u2028\u202e\u2066\U000e0041b"

func raw(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

func TestPlainText(t *testing.T) {
	got := plainText(nasty + " é東\n")
	if raw(got) || strings.Contains(got, "\n") || !strings.HasPrefix(got, "a [2J") || !strings.HasSuffix(got, "b é東 ") {
		t.Errorf("plainText = %q", got)
	}
}

func TestOneWord(t *testing.T) {
	for in, want := range map[string]string{
		"k-1_é": "k-1_é", "a b": `"a b"`, `a"b`: `"a\"b"`, "\u202ea": `"\u202ea"`, "\u009b": `"\u009b"`,
	} {
		if got := oneWord(in); got != want {
			t.Errorf("oneWord(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestPrintJSON(t *testing.T) {
	var out bytes.Buffer
	f := formatJSON
	if err := f.print(&out, map[string]string{"x": nasty + "é"}, func(io.Writer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back["x"] != nasty+"é" || raw(out.String()) {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// What an answer holds that YAML does not take is an escape there, too.
func TestPrintYAML(t *testing.T) {
	var out bytes.Buffer
	f := formatYAML
	if err := f.print(&out, map[string]string{"x": nasty + "é"}, func(io.Writer) error { return nil }); err != nil {
		t.Fatal(err)
	}
	var back map[string]string
	if err := yaml.Unmarshal(out.Bytes(), &back); err != nil || back["x"] != nasty+"é" || raw(out.String()) {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func TestIsToken(t *testing.T) {
	for text, want := range map[string]bool{
		"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2ln-_0": true, "a.b.": true, "..": true,
		"": false, "a.b": false, "a.b.c.d": false, "a.b.c\n": false, "\x1b[2Ja.b.c": false, "a.b.c=": false, "a.é.c": false,
	} {
		if got := isToken(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestVerifyPrintsNothingRaw(t *testing.T) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := token.NewSigner("EdDSA", nasty, key)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := s.Sign("JWT", fmt.Appendf(nil, "{\"exp\":%d,\"x\":\"\u009b\u202e\x7f\"}", time.Now().Unix()+60))
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]string{"kty": "OKP", "crv": "Ed25519", "kid": nasty, "x": base64.RawURLEncoding.EncodeToString(pub)}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, set, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := run("", "verify", "--jwks", file, tok)
	if code != 0 || raw(stdout) || raw(stderr) || !strings.Contains(stderr, `signed with "a\x1b[2J`) || !strings.Contains(stdout, `"\u009b\u202e\u007f"`) {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

// full takes so many bytes.
type full int

func (f *full) Write(p []byte) (int, error) {
	if *f -= full(len(p)); *f < 0 {
		return 0, syscall.ENOSPC
	}
	return len(p), nil
}

// TestOutputThatIsNotWritten: whatever is printed, who does not get it hears so.
func TestOutputThatIsNotWritten(t *testing.T) {
	for _, args := range [][]string{
		{}, {"--help"}, {"--version"}, {"version"}, {"help", "sign"}, {"sign", "--help"}, {"config"}, {"completion", "bash"}, {"completion", "zsh", "--help"},
	} {
		for _, room := range []int{0, 10} {
			var told bytes.Buffer
			out := full(room) // in bytes
			if code := Execute(t.Context(), Config{Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &told}); code != exitFailed || !strings.Contains(told.String(), "no space left") {
				t.Errorf("%q: exit code %d, %s", args, code, &told)
			}
		}
	}
}
