package harden

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const (
	child = "KEYTURN_HARDEN_CHILD" // holds the name of the test that the child is for
	ran   = "harden: the test ran in its process"
)

// inChild calls f in a process of its own, since what this package does holds
// for good. What the test does before is done in both processes, so f gets its
// folder from the parent.
func inChild(t *testing.T, env []string, f func(t *testing.T, dir string)) {
	t.Helper()
	if name, dir, ok := strings.Cut(os.Getenv(child), "="); ok && name == t.Name() {
		fmt.Println(ran)
		f(t, dir)
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.count=1")
	cmd.Env = append(append(os.Environ(), env...), child+"="+t.Name()+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in its process: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), ran) {
		t.Fatalf("the child did not run the test:\n%s", out)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
