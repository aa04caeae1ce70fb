package report

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// wanted is what issue C asks of a ratio, and what is compared.
var wanted = []struct{ name, want, what string }{
	{"es256.socket/raw", "≥ 0.42", "one token a request, beside bare signatures"},
	{"es256.batch/raw", "≥ 0.85", "64 tokens a request"},
	{"eddsa.socket/raw", "≥ 0.35", "Ed25519, whose signature is the cheapest"},
	{"rs256.socket/raw", "≥ 0.93", "RSA of 3072 bits, the default of a ring"},
	{"rs256-2048.socket/raw", "", "RSA of 2048 bits"},
	{"es256.socket-audited/es256.socket", "≥ 0.85", "a line in the audit log before each token is released, beside none"},
	{"es256.socket/vault-transit", "≥ 3", "beside signatures made inside Vault"},
	{"es256.socket/vault-identity", "≥ 10", "beside Vault's own identity tokens"},
	{"p99.flooded/calm", "≤ 3", "the slowest hundredth at half load, beside a flood of another user"},
}

// Lines are what a run printed.
type Lines struct {
	names  []string // of the bench lines, in their order
	bench  map[string]string
	units  map[string]string
	ratios map[string]string
}

// Read takes the lines of a run and leaves out all else.
func Read(r io.Reader) (Lines, error) {
	p := Lines{bench: map[string]string{}, units: map[string]string{}, ratios: map[string]string{}}
	in := bufio.NewScanner(r)
	for in.Scan() {
		f := strings.Fields(in.Text())
		switch {
		case len(f) == 4 && f[0] == "bench":
			p.names = append(p.names, f[1])
			p.bench[f[1]], p.units[f[1]] = f[2], f[3]
		case len(f) == 3 && f[0] == "ratio":
			p.ratios[f[1]] = f[2]
		}
	}
	if len(p.names) == 0 {
		return p, errors.Join(errors.New("there is no line `bench NAME VALUE UNIT`"), in.Err())
	}
	return p, in.Err()
}

// Markdown is the lines as tables, below the circumstances and a remark.
func (p Lines) Markdown(circumstances, remark string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", circumstances)
	if remark != "" {
		fmt.Fprintf(&s, "%s\n", remark)
	}
	s.WriteString("\n| ratio | measured | by processor time | wanted | |\n|---|---|---|---|---|\n")
	for _, w := range wanted {
		if v, ok := p.ratios[w.name]; ok {
			fmt.Fprintf(&s, "| `%s` | %s | %s | %s | %s |\n", w.name, v, p.byCost(w.name), w.want, w.what)
		}
	}
	s.WriteString("\n| | a second | the server's processor time, µs each | the load's |\n|---|---|---|---|\n")
	for _, name := range p.names {
		if unit := p.units[name]; unit != "tokens/s" && unit != "signatures/s" {
			continue
		}
		server, load := p.bench[name+".server-cpu"], p.bench[name+".load-cpu"]
		if cpu, ok := p.bench[name+".cpu"]; ok {
			server = cpu
		}
		fmt.Fprintf(&s, "| `%s` | %s | %s | %s |\n", name, p.bench[name], server, load)
	}
	s.WriteString("\n| | |\n|---|---|\n")
	for _, name := range p.names {
		if unit := p.units[name]; unit == "MB" || unit == "tokens" || unit == "us" && !strings.HasSuffix(name, "cpu") {
			fmt.Fprintf(&s, "| `%s` | %s %s |\n", name, p.bench[name], strings.Replace(unit, "us", "µs", 1))
		}
	}
	return s.String()
}

// byCost is what a ratio of rates would be on a machine that does nothing else:
// the processor time of both sides, the asking process's included.
func (p Lines) byCost(ratio string) string {
	over, under, _ := strings.Cut(ratio, "/")
	if group, _, ok := strings.Cut(over, "."); ok && !strings.Contains(under, ".") {
		under = group + "." + under
	}
	a, b := p.cost(over), p.cost(under)
	if a == 0 || b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", b/a)
}

// cost is the processor time of one, in µs; 0 where nobody measured it.
func (p Lines) cost(name string) float64 {
	sum := 0.0
	for _, part := range []string{".cpu", ".server-cpu", ".load-cpu"} {
		us, err := strconv.ParseFloat(p.bench[name+part], 64)
		if err == nil {
			sum += us
		}
	}
	return sum
}

// Allocations is what BenchmarkSocket counted, as a table, by request and by token.
func Allocations(r io.Reader) (string, error) {
	var s strings.Builder
	s.WriteString("| request | allocations | bytes | of each token |\n|---|---|---|---|\n")
	rows, in := 0, bufio.NewScanner(r)
	for in.Scan() {
		f := strings.Fields(in.Text())
		if len(f) != 8 || !strings.HasPrefix(f[0], "BenchmarkSocket/") {
			continue
		}
		kind, _, _ := strings.Cut(strings.TrimPrefix(f[0], "BenchmarkSocket/"), "-")
		alg, size, _ := strings.Cut(kind, "/")
		tokens, title := 1, alg+", one token"
		if n, err := strconv.Atoi(strings.TrimPrefix(size, "batch")); err == nil {
			tokens, title = n, fmt.Sprintf("%s, a batch of %d", alg, n)
		}
		count, err := strconv.Atoi(f[6])
		if err != nil {
			return "", fmt.Errorf("%q: %w", in.Text(), err)
		}
		fmt.Fprintf(&s, "| %s | %d | %s | %.1f |\n", title, count, f[4], float64(count)/float64(tokens))
		rows++
	}
	if rows == 0 {
		return "", errors.Join(errors.New("there is no line of BenchmarkSocket"), in.Err())
	}
	return s.String(), in.Err()
}

// Machine says on what, and when.
func Machine() string {
	model := "a processor that /proc/cpuinfo does not name"
	if doc, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(doc)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // left out where it is not told
	return fmt.Sprintf("Measured on %s with %d processors (%s), %s, Linux %s.",
		time.Now().UTC().Format("2006-01-02"), runtime.NumCPU(), model, runtime.Version(), strings.TrimSpace(string(release)))
}

// ReplaceBlock puts a text between the marks of a document.
func ReplaceBlock(path, name, text string) error {
	doc, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+name+":begin -->\n"), []byte("<!-- "+name+":end -->")
	at := bytes.Index(doc, begin)
	to := bytes.Index(doc, end)
	if at < 0 || to < at {
		return fmt.Errorf("%s has no block %s%s", path, begin, end)
	}
	out := append(append(append([]byte(nil), doc[:at+len(begin)]...), text...), doc[to:]...)
	return os.WriteFile(path, out, 0o644)
}
