package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// example runs a program of examples/ as a reader would, and wants it to end well.
func example(t *testing.T, d *daemon, stdin string, command ...string) string {
	t.Helper()
	out, errs, err := tryExample(t, d, stdin, command...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, errs)
	}
	if secretText.MatchString(errs) {
		t.Errorf("%s prints a token where logs go: %s", strings.Join(command, " "), errs)
	}
	return strings.TrimSpace(out)
}

func tryExample(t *testing.T, d *daemon, stdin string, command ...string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = ".."
	cmd.Env = append(cleanEnv(), "KEYTURN_SOCKET="+d.sign, "GOWORK=off", "PATH="+filepath.Dir(keyturn)+":"+os.Getenv("PATH"))
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// TestExamples: each gets a token of a daemon that verifies, and each that
// verifies says who the token is about, and refuses what is not good.
func TestExamples(t *testing.T) {
	t.Parallel()
	d := newSite(t).edit("@every 10s", "@every 1h").start("web")
	issuer := "http://" + d.public
	var tokens []string
	for _, sign := range [][]string{{"/usr/bin/python3", "examples/python/sign.py"}, {"node", "examples/node/sign.mjs"}} {
		token := example(t, d, "", append(sign, "web", "alice", "demo")...)
		must(t, verifyWith(d.jwksURL(), token, "demo"))
		if sub := claimsOf(token)["sub"]; sub != "alice" {
			t.Errorf("%s: subject %v", sign[1], sub)
		}
		tokens = append(tokens, token)
		if out, errs, err := tryExample(t, d, "", append(sign, "none", "alice", "demo")...); err == nil || out != "" || !strings.Contains(errs, "forbidden: ") {
			t.Errorf("%s with a profile that is not there: %v %q %s", sign[1], err, out, errs)
		}
	}
	forged := tokens[0][:strings.LastIndex(tokens[0], ".")+1] + strings.Split(tokens[1], ".")[2]
	for _, verify := range [][]string{{"/usr/bin/python3", "examples/python/verify.py"}, {"node", "examples/node/verify.mjs"}} {
		for _, token := range tokens {
			if got, want := example(t, d, token, append(verify, d.jwksURL(), issuer, "demo")...), "alice "+kidOf(t, token); got != want {
				t.Errorf("%s says %q, want %q", verify[1], got, want)
			}
		}
		for why, with := range map[string][]string{"forged": {forged, issuer, "demo"}, "another issuer": {tokens[0], "https://else", "demo"}, "another audience": {tokens[0], issuer, "else"}} {
			if out, errs, err := tryExample(t, d, with[0], append(verify, d.jwksURL(), with[1], with[2])...); err == nil || out != "" {
				t.Errorf("%s takes what is %s: %q %s", verify[1], why, out, errs)
			}
		}
	}
	calls := example(t, d, "", "go", "run", "-buildvcs=false", "./examples/go", "-profile", "web", "-subject", "alice", "-audience", "demo", "-issuer", issuer)
	if kid := d.mustToken("web").Kid; strings.Count(calls, "200 OK: hello alice, whose token was signed with "+kid) != 2 {
		t.Errorf("examples/go says %q", calls)
	}
}

// TestShellExample: curl sends what keyturn token keeps in a file.
func TestShellExample(t *testing.T) {
	t.Parallel()
	d := newSite(t).edit("@every 10s", "@every 1h").start("web")
	var sent string
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = r.Header.Get("Authorization")
		_, _ = fmt.Fprintln(w, "served")
	}))
	defer service.Close()
	if got := example(t, d, "", "sh", "examples/shell/call.sh", "web", "alice", "demo", service.URL); got != "served" {
		t.Errorf("it prints %q", got)
	}
	token, ok := strings.CutPrefix(sent, "Bearer ")
	if err := verifyWith(d.jwksURL(), token, "demo"); !ok || err != nil {
		t.Errorf("it sends %d bytes: %v", len(sent), err)
	}
}
