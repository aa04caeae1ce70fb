package rotator_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutant is one rule dropped from the source. The simulator must notice.
type mutant struct {
	name string
	// climates are where it shows; a mutant that would show everywhere names none.
	climates string
	edits    []edit
}

// edit replaces a piece of a file of the module, which must stand there once.
type edit struct{ file, old, new string }

// died is how a mutant was caught.
type died struct {
	mutant  string
	by      string // the invariant
	walk    string
	climate string
	took    time.Duration
}

// TestMutants drops each rule in turn, by an overlay of the source, and lets
// the simulator walk: a mutant that lives shows a rule that nothing checks.
func TestMutants(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var table []died
	t.Cleanup(func() {
		for _, d := range table {
			t.Logf("%-46s %-9s walk %-4s %-10s %4.1fs", d.mutant, d.by, d.walk, d.climate, d.took.Seconds())
		}
	})
	places := make(chan struct{}, 2)
	t.Run("none", func(t *testing.T) { // the code as it is lives, and without the race detector it walks further
		t.Parallel()
		places <- struct{}{}
		defer func() { <-places }()
		cmd := exec.Command(build(t, root, mutant{}), "-test.run", "^TestSim(Walks|EveryInterleaving)$", "-test.v")
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Logf("%s", out)
	})
	for _, m := range mutants() {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			began := time.Now()
			d := kill(t, build(t, root, m), m)
			d.took = time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			table = append(table, d)
		})
	}
}

// build compiles the simulator over the mutated source.
func build(t *testing.T, root string, m mutant) string {
	t.Helper()
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	texts := map[string]string{}
	for _, e := range m.edits {
		text, ok := texts[e.file]
		if !ok {
			doc, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(doc)
		}
		if n := strings.Count(text, e.old); n != 1 {
			t.Fatalf("%s holds %d times, and should hold once:\n%s", e.file, n, e.old)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	for file, text := range texts {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, file)] = path
	}
	doc, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "sim.test")
	cmd := exec.Command("go", "test", "-c", "-buildvcs=false", "-overlay", list, "-o", bin, "./rotator")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not compile: %v\n%s", err, out)
	}
	return bin
}

var caught = regexp.MustCompile(`walk (\d+), climate (\w+): (\w+): (.*)`)

// mutantTime is how long a mutant may live.
const mutantTime = 120 * time.Second

func kill(t *testing.T, bin string, m mutant) died {
	t.Helper()
	args := []string{"-test.run", "^TestSimWalks$", "-test.v", "-sim.time", mutantTime.String(), "-sim.brief"}
	if m.climates != "" {
		args = append(args, "-sim.climate", m.climates)
	}
	if seed := os.Getenv("MUTANT_SEED"); seed != "" {
		args = append(args, "-sim.seed", seed)
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	found := caught.FindSubmatch(out)
	switch {
	case err == nil:
		t.Fatalf("it lives:\n%s", out)
	case found == nil:
		t.Fatalf("it ended otherwise: %v\n%s", err, out)
	}
	t.Logf("%s", found[0])
	return died{mutant: m.name, walk: string(found[1]), climate: string(found[2]), by: string(found[3])}
}
