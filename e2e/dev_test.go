package e2e

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/api"
)

// startDev runs keyturn dev in a folder and waits until it says what to try.
func startDev(t *testing.T, dir, public string, env []string, more ...string) *daemon {
	t.Helper()
	d := daemon{dir: dir, sign: filepath.Join(dir, "sign.sock"), admin: filepath.Join(dir, "admin.sock"), public: public, status: freeAddr(t)}
	run := start(t, d, env, append([]string{"dev", "--dir", dir, "--public-addr", public, "--status-addr", d.status}, more...)...)
	run.canSign(15*time.Second, "dev")
	within(t, 15*time.Second, "what to try", func() error {
		if !strings.Contains(run.out.String(), "Ctrl-C") {
			return fmt.Errorf("not printed yet")
		}
		return nil
	})
	return run
}

func (d *daemon) jwksURL() string { return "http://" + d.public + "/.well-known/jwks.json" }

// TestDev is the first thing that a newcomer does: run it, paste what it
// prints, watch a rotation.
func TestDev(t *testing.T) {
	t.Parallel()
	d := startDev(t, t.TempDir(), freeAddr(t), nil)
	pasteWhatItPrints(t, d)
	rotationWithoutFailure(t, d, 2*time.Minute)
}

// pasteWhatItPrints runs the printed commands, in a shell, as they stand.
func pasteWhatItPrints(t *testing.T, d *daemon) {
	t.Helper()
	_, text, _ := strings.Cut(d.out.String(), "In another terminal:")
	text, _, _ = strings.Cut(text, "Ctrl-C")
	var script []string
	for line := range strings.Lines(text) {
		if regexp.MustCompile(`^(curl|TOKEN=|/|keyturn)`).MatchString(line) {
			script = append(script, strings.TrimSpace(line))
		}
	}
	if len(script) < 7 {
		t.Fatalf("only %d lines to paste in:\n%s", len(script), text)
	}
	sh := exec.Command("sh", "-euxc", strings.Join(script, "\n"))
	sh.Env = append(cleanEnv(), "PATH="+filepath.Dir(keyturn)+":"+os.Getenv("PATH"))
	out, err := sh.CombinedOutput()
	if err != nil {
		t.Fatalf("what keyturn dev prints does not work when pasted: %v\n%s", err, out)
	}
	for _, want := range []string{`"token":"ey`, `'sub': 'alice'`, "alice", "active", "standby"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("pasted lines print no %q:\n%s", want, out)
		}
	}
}

// rotationWithoutFailure signs and verifies all the time until the ring has
// turned over, and wants every token to verify for all of its life.
func rotationWithoutFailure(t *testing.T, d *daemon, limit time.Duration) {
	t.Helper()
	first := d.mustToken("dev")
	kids := []string{first.Kid}
	verified := 0
	for deadline := time.Now().Add(limit); len(kids) == 1 || time.Since(first.ExpiresAt.Add(-time.Duration(first.ExpiresIn)*time.Second)) < 5*time.Second; {
		if time.Now().After(deadline) {
			t.Fatalf("no rotation within %s", limit)
		}
		tok := d.mustToken("dev")
		if !slices.Contains(kids, tok.Kid) {
			kids = append(kids, tok.Kid)
		}
		for _, s := range []api.SignResponse{tok, first} {
			if time.Now().Before(s.ExpiresAt) {
				if err := verifyWith(d.jwksURL(), s.Token, "demo"); err != nil {
					t.Fatalf("token of %s, signed with %s while %s signs: %v", s.ExpiresAt, s.Kid, tok.Kid, err)
				}
				verified++
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d verifications over the rotation %v, no failure", verified, kids)
}

// verifyWith verifies one token with go-oidc against a freshly fetched set.
func verifyWith(jwks, token, audience string) error {
	issuer := claimsOf(token)["iss"].(string)
	_, err := goOIDC(nil, jwks, issuer, audience, 0, []string{token})
	return err
}

func segment(token string, n int) map[string]any {
	var out map[string]any
	if doc, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[n]); err == nil {
		_ = json.Unmarshal(doc, &out)
	}
	return out
}

func claimsOf(token string) map[string]any { return segment(token, 1) }

func kidOf(_ *testing.T, token string) string {
	kid, _ := segment(token, 0)["kid"].(string)
	return kid
}

// TestDevLeavesNothing: without --dir a try-out is gone with its end, though the
// daemon has confined itself by then, and may not even list /tmp.
func TestDevLeavesNothing(t *testing.T) {
	t.Parallel()
	d := start(t, daemon{}, []string{"TMPDIR=/tmp"}, "dev", "--public-addr", freeAddr(t), "--status-addr", freeAddr(t))
	within(t, 20*time.Second, "what to try", func() error {
		_, text, _ := strings.Cut(d.out.String(), "keyturn dev is up, its files are in ")
		dir, _, found := strings.Cut(text, ". In another terminal:")
		if !found {
			return fmt.Errorf("not printed yet")
		}
		d.dir, d.sign = dir, filepath.Join(dir, "sign.sock")
		return nil
	})
	d.mustToken("dev")
	d.stop()
	if left, err := os.ReadDir(d.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left in %s: %v %v", d.dir, left, err)
	}
}

// TestDevSurvivesKill: after kill -9 the same key signs on.
func TestDevSurvivesKill(t *testing.T) {
	t.Parallel()
	dir, public := t.TempDir(), freeAddr(t)
	d := startDev(t, dir, public, nil)
	before := d.mustToken("dev")
	standby, _ := d.key("dev", "standby")
	d.kill()
	d = startDev(t, dir, public, nil)
	after := d.mustToken("dev")
	if after.Kid != before.Kid && after.Kid != standby.Kid {
		t.Errorf("kid %s signs after kill -9, %s did before and %s was next", after.Kid, before.Kid, standby.Kid)
	}
	resp, err := http.Get(d.jwksURL())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []struct{ Kid string } `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(set.Keys, func(k struct{ Kid string }) bool { return k.Kid == before.Kid }) {
		t.Errorf("the set lost %s over the restart", before.Kid)
	}
}
