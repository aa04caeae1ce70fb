package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChaosNoLead runs the machine of TestChaos on a keyturn whose new keys may
// sign at once. It has to notice: a test that passes whatever the program does
// shows nothing.
func TestChaosNoLead(t *testing.T) {
	t.Parallel()
	c := newChaos(t, withoutLead(t))
	c.begin()
	began := time.Now()
	for n := uint32(0); time.Since(began) < time.Minute && !c.noticed(); n++ {
		c.rotateTwice(trouble{replica: int(n), dice: n})
		c.pause(500 * time.Millisecond)
	}
	if !c.noticed() {
		t.Errorf("nothing was noticed within %s", time.Since(began))
	}
	c.halt()
	if n := c.ledger.report(t); n > 0 {
		t.Logf("as it should, %d failures; the first: %s", n, c.ledger.failures[0])
	}
}

// noticed reports that a consumer could not verify a token.
func (c *chaos) noticed() bool {
	select {
	case <-c.ledger.first:
		return true
	default:
		return false
	}
}

// withoutLead builds a keyturn from the present source with one patch.
func withoutLead(t *testing.T) string {
	t.Helper()
	const (
		file = "../keyring/timing.go"
		lead = "func (c *Config) lead(span time.Duration) time.Duration {\n"
	)
	source, err := os.ReadFile(file)
	must(t, err)
	if n := strings.Count(string(source), lead); n != 1 {
		t.Fatalf("%s has %q %d times: let this test know what the lead is called now", file, lead, n)
	}
	dir := t.TempDir()
	patched := filepath.Join(dir, "timing.go")
	must(t, os.WriteFile(patched, []byte(strings.Replace(string(source), lead, lead+"\tif span >= 0 {\n\t\treturn 0\n\t}\n", 1)), 0o600))
	original, err := filepath.Abs(file)
	must(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: patched}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	return buildWith(t, filepath.Join(dir, "overlay.json"))
}

// buildWith builds a keyturn from the present source, as an overlay changes it.
func buildWith(t *testing.T, overlay string) string {
	t.Helper()
	overlay, err := filepath.Abs(overlay)
	must(t, err)
	binary := filepath.Join(t.TempDir(), "keyturn")
	build := exec.Command("go", "build", "-buildvcs=false", "-overlay", overlay, "-o", binary, "./cmd/keyturn")
	build.Dir = ".."
	build.Env = append(os.Environ(), "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build keyturn with %s: %v\n%s", overlay, err, out)
	}
	return binary
}
