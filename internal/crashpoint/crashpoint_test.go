package crashpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const variable = "KEYTURN_CRASH_AT"

// build makes a binary of a package of this module.
func build(t *testing.T, pkg string, args ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "binary")
	cmd := exec.Command("go", append(append([]string{"build", "-buildvcs=false", "-o", bin}, args...), pkg)...)
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s %v: %v\n%s", pkg, args, err, out)
	}
	return bin
}

// TestNotInTheProduct: without the tag the binary does not know the variable,
// nor a single place. That the search can find them it shows on the other one.
func TestNotInTheProduct(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		args []string
		want bool
	}{
		{"product", nil, false},
		{"with the tag", []string{"-tags", "crashpoints"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			code, err := os.ReadFile(build(t, "../../cmd/keyturn", tc.args...))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range []string{variable, "create.generated", "destroy.destroyed", "publish.listed", "publish.wrote"} {
				if got := bytes.Contains(code, []byte(text)); got != tc.want {
					t.Errorf("%q is in the binary: %v, want %v", text, got, tc.want)
				}
			}
		})
	}
}

func TestCrashes(t *testing.T) {
	t.Parallel()
	with, without := build(t, "./testdata/steps", "-tags", "crashpoints"), build(t, "./testdata/steps")
	const all = "a b a c a"
	for _, tc := range []struct {
		binary, at, passed string
		end                string // how the process ended
	}{
		{with, "", all, "exit"},
		{with, "a", "", "killed"},
		{with, "a:1", "", "killed"},
		{with, "a:2", "a b", "killed"},
		{with, "a:3", "a b a c", "killed"},
		{with, "a:4", all, "exit"},
		{with, "c", "a b a", "killed"},
		{with, "nowhere", all, "exit"},
		{with, "a:0", "", "panic"},
		{with, "a:-1", "", "panic"},
		{with, "a:", "", "panic"},
		{with, "a:b", "", "panic"},
		{without, "a", all, "exit"},
		{without, "a:b", all, "exit"},
	} {
		cmd := exec.Command(tc.binary)
		cmd.Env = []string{variable + "=" + tc.at}
		out, _ := cmd.Output()
		if got := strings.Join(strings.Fields(string(out)), " "); got != tc.passed {
			t.Errorf("%s=%s: it passed %q, want %q", variable, tc.at, got, tc.passed)
		}
		end := "exit"
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() && status.Signal() == syscall.SIGKILL {
			end = "killed"
		} else if status.ExitStatus() != 0 {
			end = "panic"
		}
		if end != tc.end {
			t.Errorf("%s=%s: %s, want %s", variable, tc.at, end, tc.end)
		}
	}
}
