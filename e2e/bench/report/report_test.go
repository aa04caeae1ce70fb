package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A ratio is the median of what each round found, so that a machine that is
// slow for one round does not shift it.
func TestReport(t *testing.T) {
	r := New()
	for _, round := range []struct{ socket, raw float64 }{{30, 100}, {4, 10}, {45, 100}} {
		r.Add("es256.socket", "tokens/s", round.socket)
		r.Add("es256.raw", "signatures/s", round.raw)
	}
	r.Compare("es256.socket/raw", "es256.socket", "es256.raw")
	var out strings.Builder
	if err := r.Write(&out); err != nil {
		t.Fatal(err)
	}
	want := "bench es256.socket 30.0 tokens/s\nbench es256.raw 100 signatures/s\nratio es256.socket/raw 0.400\n"
	if out.String() != want {
		t.Errorf("printed\n%swant\n%s", out.String(), want)
	}
	r.Add("es256.raw", "signatures/s", 100)
	if err := r.Write(&out); err == nil {
		t.Error("a ratio of three rounds and four was printed")
	}
}

func TestTable(t *testing.T) {
	lines, err := Read(strings.NewReader("round 1 of 1\nbench es256.socket 32000 tokens/s\nbench es256.socket.server-cpu 40.1 us\n" +
		"bench es256.socket.load-cpu 9.9 us\nbench es256.raw.cpu 25.0 us\nbench memory.idle 18.0 MB\nratio es256.socket/raw 0.450\n"))
	if err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(doc, []byte("before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceBlock(doc, "bench", lines.Markdown("Measured here.", "")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"before\n<!-- bench:begin -->\nMeasured here.\n", "| `es256.socket/raw` | 0.450 | 0.50 | ≥ 0.42 |",
		"| `es256.socket` | 32000 | 40.1 | 9.9 |", "| `memory.idle` | 18.0 MB |", "<!-- bench:end -->\nafter\n"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the document lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(string(got), "old") {
		t.Error("what stood in the block is still there")
	}
	if err := ReplaceBlock(doc, "profile", ""); err == nil {
		t.Error("a block that the document lacks was replaced")
	}
}

func TestAllocations(t *testing.T) {
	got, err := Allocations(strings.NewReader("goos: linux\nBenchmarkSocket/ES256/one-2   1000   44162 ns/op   6805 B/op   91 allocs/op\n" +
		"BenchmarkSocket/EdDSA/batch64-2   1000   1402034 ns/op   50989 B/op   608 allocs/op\nPASS\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"| ES256, one token | 91 | 6805 | 91.0 |", "| EdDSA, a batch of 64 | 608 | 50989 | 9.5 |"} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q:\n%s", want, got)
		}
	}
	if _, err := Allocations(strings.NewReader("PASS\n")); err == nil {
		t.Error("a table of nothing")
	}
}
